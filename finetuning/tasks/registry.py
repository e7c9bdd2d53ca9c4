"""All tasks: one row for each, and the task that `model.task` names. A new task is one file and one row."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping, Sequence

from exceptions import SettingsError
from finetuning.config.schema import Settings
from finetuning.tasks.base import Task

# Module below finetuning.tasks, and the Task subclass in it.
_ROWS = (
    ("classification.single", "TextClassification"),
    ("classification.multi_label", "MultiLabelClassification"),
    ("classification.regression", "TextRegression"),
    ("tagging.task", "TokenClassification"),
    ("parsing.task", "DependencyParsing"),
    ("answering.task", "QuestionAnswering"),
    ("masked_lm", "FillMask"),
    ("generation.causal", "TextGeneration"),
    ("generation.seq2seq", "Text2TextGeneration"),
    ("preference.task", "PreferenceTask"),
    ("preference.reward", "RewardTask"),
    ("embedding.task", "EmbeddingTask"),
    ("reranker.task", "RerankerTask"),
    ("reranker.causal", "CausalRerankerTask"),
)


def task_classes() -> dict[str, type[Task]]:
    """Return every task class by its name, sorted by name."""
    modules = ((importlib.import_module(f"finetuning.tasks.{module}"), name) for module, name in _ROWS)
    found: dict[str, type[Task]] = {cls.name: cls for cls in (getattr(module, name) for module, name in modules)}
    return dict(sorted(found.items()))


def find_task(settings: Settings) -> Task:
    """Build the task that `model.task` names, in any spelling, spacing and case.

    Args:
        settings: Settings of the run. Others than `model.task` may ask for a more specific task.

    Returns:
        The task, with these settings.

    Raises:
        SettingsError: No task has this name.
    """
    classes = task_classes()
    spellings = {_squeeze(name): cls for cls in classes.values() for name in (cls.name, *cls.aliases)}
    wanted = _squeeze(settings.model.task)
    if wanted in spellings:
        return classes[spellings[wanted].meant_by(settings)](settings)
    near = difflib.get_close_matches(wanted, spellings, n=1)
    guess = f"혹시 {spellings[near[0]].name}입니까? " if near else ""
    raise SettingsError(
        f"'{settings.model.task}' 태스크가 없습니다.",
        where="model.task",
        remedy=f"{guess}쓸 수 있는 태스크: {', '.join(classes)}",
    )


def refined_task(task: Task, roles: Sequence[str], train_labels: Mapping[str, int]) -> Task:
    """Build the task again with facts from the data; see `RowReader.refine`.

    Args:
        task: The task that the settings named.
        roles: Roles of the columns that were found.
        train_labels: Count of each label in train.

    Returns:
        A task of the same kind, or the one that the labels mean, such as regression.
    """
    return find_task(task.reads.refine(roles, train_labels))


def _squeeze(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())
