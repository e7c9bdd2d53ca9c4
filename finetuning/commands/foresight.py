"""What a session knows of its run before it begins: the facts behind the advice of `plan` and the verdict."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from finetuning.commands.session import Prepared, row_of
from finetuning.config.preset import method_of, preset_values
from finetuning.reporting.findings import Known, baseline_text
from finetuning.reporting.metric_names import display_name

if TYPE_CHECKING:
    from finetuning.types import Naive


def known_of(prepared: Prepared, max_length: int) -> Known:
    """Collect what is known of a run.

    Args:
        prepared: Its data, under its settings.
        max_length: Most tokens of an example.

    Returns:
        The facts.
    """
    from finetuning.data.table import numbers

    session, train = prepared.session, prepared.examples["train"]
    settings, row, processes = session.settings, row_of(session), session.runtime.processes
    by_user = session.origins.by_user
    is_open = settings.training.preset is None
    has_classes = bool(prepared.label_names) and not session.task.reads.labels_are_open
    return Known(
        settings=settings,
        method=method_of(settings),
        row=row,
        preset=preset_values(row, settings, by_user, train.per_epoch, processes) if is_open else {},
        per_epoch=train.per_epoch,
        processes=processes,
        train_labels=session.data.label_counts(prepared.splits["train"]) if has_classes else {},
        cut=int(numbers(train.table, "truncated").sum()),
        max_length=max_length,
        leaked={name: rows.in_train for name, rows in prepared.splits.items() if name != "train"},
    )


def baseline_lines(prepared: Prepared) -> list[str]:
    """Return a line on what is had without training on the split that will be scored; none where it is not known."""
    from finetuning.inference.evaluator import columns_of
    from finetuning.reporting.quality import naive_of, naive_score

    split = scored_split(prepared.examples)
    task, scored = prepared.session.task, prepared.examples[split]
    labels = prepared.session.data.label_counts(prepared.splits["train"])
    naive: Naive | None = naive_of(task, labels, len(scored.rows), prepared.label_names)
    if naive is None:
        return []
    score = naive_score(task, naive, columns_of(scored), prepared.label_names)
    return [f"기준({split} {display_name(task.scores.best_metric)}): {baseline_text(naive, score)}"]


def scored_split(splits: Collection[str]) -> str:
    """Return the split whose score a run reports: test, or validation where there is no test data."""
    return "test" if "test" in splits else "validation"
