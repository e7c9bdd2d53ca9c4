"""What the page shows of data before anything is trained: read and cleaned in memory, kept nowhere."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from exceptions import DataError, FinetuningError
from finetuning.cells import TEXT_ROLES, as_text
from finetuning.config.schema import Settings
from finetuning.data.columns import check_meaning, check_used, find_columns, group_column, missing_columns
from finetuning.data.sources import Raw, find_sources
from finetuning.types import Column
from finetuning.web.work import AskedColumn, Look

if TYPE_CHECKING:
    from finetuning.data.rows import Rows
    from finetuning.tasks.base import Task

_FIRST, _MOST_ROWS, _MOST_LABELS = 8, 100_000, 1000
_LABELS_SEEN, _MOST_KINDS = 500, 30  # rows that are looked at for labels, and how many kinds they may have
# The order in which tasks are tried where none is chosen: those with columns of their own come first.
_TRIED = (
    "question-answering", "token-classification", "preference", "text-classification", "text-generation", "reranker",
    "embedding", "text2text-generation", "fill-mask",
)  # fmt: skip


def look(settings: Settings, wants_task: bool) -> Look:
    """Read data and say what is in them.

    Args:
        settings: Name the data, the columns and the task.
        wants_task: Whether the task of the settings was chosen; else the first that the columns fit.

    Returns:
        What was found; with `problem` where the data cannot be used as chosen.
    """
    found = Look()
    try:
        sources = find_sources(settings.data)
        raw = sources.get("train") or next(iter(sources.values()))
        found = replace(
            found, columns=raw.columns, first=list(itertools.islice(raw.rows, _FIRST)), notes=raw.notes,
        )  # fmt: skip
        task = _task_of(settings) if wants_task else _fitting_task(settings, raw)
        found = replace(found, task=task.name, asked=_asked(task, raw))
        return _looked_into(found, task, sources)
    except FinetuningError as error:
        return replace(found, problem=(error.what, error.where, error.remedy))


def _task_of(settings: Settings) -> Task:
    from finetuning.tasks.registry import find_task

    return find_task(settings)


def _fitting_task(settings: Settings, raw: Raw) -> Task:
    """Return the first task all of whose columns are there.

    It is text-classification where none fits, and where a task for texts alone would leave a column of labels aside.
    """
    for name in _TRIED:
        task = _task_of(settings.model_copy(update={"model": settings.model.model_copy(update={"task": name})}))
        try:
            columns = task.reads.columns(raw.columns)
        except FinetuningError:
            continue
        if not missing_columns(columns, raw) and _reads_first_rows(task, columns, raw):
            read = find_columns(columns, raw).values()
            if len(read) > 1 or not any(_has_labels(name, raw) for name in raw.columns if name not in read):
                return task
            break
    return _task_of(settings)


def _has_labels(column: str, raw: Raw) -> bool:
    """Return whether the first rows of a column repeat a few values."""
    cells = [as_text(row.get(column)) for row in itertools.islice(raw.rows, _LABELS_SEEN)]
    return 1 < len({*cells}) <= min(_MOST_KINDS, len(cells) // 4)


def _reads_first_rows(task: Task, columns: Sequence[Column], raw: Raw) -> bool:
    """Return whether a task can use one of the first rows: columns of tags and of labels have the same names."""
    from finetuning.data.cleaning import Cleaner
    from finetuning.data.findings import Findings

    try:
        cleaner = Cleaner.to_train(task, task.settings.data, columns, find_columns(columns, raw), _FIRST)
    except DataError:
        return False
    return next(cleaner.clean(raw.rows, Findings()), None) is not None


def _asked(task: Task, raw: Raw) -> tuple[AskedColumn, ...]:
    found = []
    for column in task.reads.columns(raw.columns):
        try:
            name = find_columns([column], raw).get(column.role)
        except DataError:
            name = None
        found.append(AskedColumn(column.role, column.setting, name, not column.optional))
    return tuple(found)


def _looked_into(found: Look, task: Task, sources: Mapping[str, Raw]) -> Look:
    """Clean the rows and count what is in them."""
    from data_manager import DataManager
    from finetuning.data.label_check import doubtful_labels
    from finetuning.data.repeats import repeats_in
    from finetuning.tasks.registry import refined_task

    splits, notes = dict[str, "Rows"](), list[str]()
    for name, raw in sources.items():
        splits[name], told = _clean(raw, name, task)
        notes += told
    train = splits.get("train") or next(iter(splits.values()))
    counts = DataManager(task.settings, task).label_counts(train) if task.reads.has_labels else {}
    meant = refined_task(task, train.table.column_names, counts).name
    doubts = doubtful_labels(counts) if len(counts) <= _MOST_LABELS else []
    found = replace(
        found,
        meant=meant if meant != task.name else "",
        rows={name: len(rows) for name, rows in splits.items()},
        notes=tuple(dict.fromkeys(notes)),
        labels=dict(counts) if meant == task.name else {},
        doubts=tuple(doubt.said for doubt in doubts) if meant == task.name else (),
        merged={doubt.label: doubt.instead for doubt in doubts if doubt.instead != ""},
        lengths=_lengths(train),
        repeats=repeats_in({"train": train, **splits}, task.reads.has_labels)[0],
        is_cut=any(len(rows) >= _MOST_ROWS for rows in splits.values()),
    )
    if task.reads.has_labels and meant == task.name:
        task.reads.label_names(counts)  # raises where the labels cannot be learned
    return found


def _clean(raw: Raw, split: str, task: Task) -> tuple[Rows, Sequence[str]]:
    """Clean a source's first rows in memory, as a run does with all of them."""
    from finetuning.data.arrow import in_memory, row_tables
    from finetuning.data.cleaning import Cleaner
    from finetuning.data.findings import Findings
    from finetuning.data.rows import Rows

    data, columns, findings = task.settings.data, task.reads.columns(raw.columns), Findings()
    if split == "train":
        check_meaning(columns, task, raw)
        check_used(columns, task, raw)
        columns = (*columns, *group_column(data))
    names = find_columns(columns, raw)
    cleaner = Cleaner.to_train(task, data, columns, names, _MOST_ROWS)
    table = in_memory(row_tables(cleaner.clean(raw.rows, findings), cleaner.names))
    findings.check(raw.where, names, data.max_bad_rows, raw.notes)
    return Rows(raw.where, table, "", names), [line for _, line in findings.told(raw.notes)]


def _lengths(rows: Rows) -> tuple[int, int, int] | None:
    """Return how many characters half, nine in ten and all of the texts have at most."""
    import numpy as np

    roles = [role for role in TEXT_ROLES if role in rows.table.column_names]
    if not roles or not len(rows):
        return None
    lengths = sum(np.array([len(text) for text in rows.table[role][:]]) for role in roles)
    half, most, longest = np.percentile(lengths, (50, 90, 100)).astype(int).tolist()
    return half, most, longest
