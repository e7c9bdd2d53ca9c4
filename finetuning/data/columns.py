"""Which column of a source has which role."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from exceptions import DataError, SettingsError
from finetuning.cells import ROLE_NAMES, as_label
from finetuning.config.schema import DataSettings
from finetuning.data.cleaning import GROUP
from finetuning.data.formats.base import clean_name
from finetuning.data.sources import Raw
from finetuning.korean.particles import with_particle
from finetuning.tasks.base import Task
from finetuning.types import Column

_log = logging.getLogger(__name__)
_COLUMNS = frozenset({
    "text_column", "text_pair_column", "label_column", "prompt_column", "response_column", "question_column",
    "context_column", "answers_column", "chosen_column", "rejected_column", "judged_column", "negative_column",
    "head_column",
})  # fmt: skip
_TASK_OF = {  # usual columns that one task alone reads
    "messages": "text-generation", "conversations": "text-generation", "ner_tags": "token-classification",
    "answers": "question-answering", "rejected": "preference", "deprel": "dependency-parsing",
}  # fmt: skip
_SHOWN = 20  # names of columns
_LONG_NAME = 20  # characters
_WITH_FLAGS = frozenset({"text_column", "text_pair_column", "label_column"})  # other columns are set with --set
_LOOKED_AT, _MOST_LABELS, _LONGEST_LABEL = 1000, 50, 30  # rows, labels, characters


def find_columns(columns: Sequence[Column], raw: Raw) -> dict[str, str]:
    """Find the source's column for each role: by the name in the settings or, where that is the default, a usual name.

    Args:
        columns: The columns that a task reads.
        raw: The source; a column found by a usual name is logged with it.

    Returns:
        Role → the source's column name. A missing optional column is left out.

    Raises:
        DataError: A column is missing, or several have a usual name for one role.
    """
    names: dict[str, str] = {}
    for column in columns:
        candidates = _candidates(column, raw.columns)
        if candidates == [clean_name(column.name or "")]:
            names[column.role] = candidates[0]
        elif len(candidates) == 1:
            names[column.role] = candidates[0]
            role, found = ROLE_NAMES.get(column.role, column.role), with_particle(f"'{candidates[0]}'", "을/를")
            _log.info("%s 열로 %s 자동 선택했습니다. (%s)", role, found, raw.where)
        elif candidates or not (column.optional and column.is_default()):
            raise _no_column(column, candidates, raw)
    return names


def group_column(data: DataSettings) -> tuple[Column, ...]:
    """Return the column of `data.group_column`, which no task reads; none where it is not set."""
    return (Column(GROUP, "group_column", data.group_column),) if data.group_column is not None else ()


def check_used(columns: Sequence[Column], task: Task, raw: Raw) -> None:
    """Check that the task reads every column that the settings name.

    Args:
        columns: The columns that the task reads from this source.
        task: The task, under its settings.
        raw: The source, for the message.

    Raises:
        SettingsError: A column is named and would not be read; the message names the settings to use instead.
    """
    data = task.settings.data
    names: dict[str, str | None] = {name: getattr(data, name) for name in type(data).model_fields if name in _COLUMNS}
    named = {name: value for name, value in names.items() if value != type(data).model_fields[name].default}
    read = {column.setting for column in columns}
    unread = [name for name in named if name not in read]
    if not unread:
        return
    instead = [f"--set data.{task.reads.instead[name]}={value}" for name, value in named.items()
               if name in task.reads.instead]  # fmt: skip
    what = ", ".join(f"data.{name}: {named[name]}" for name in unread)
    settings = ", ".join(f"data.{name}" for name in sorted(read))
    remedy = f"지금 읽는 열의 설정은 {settings}입니다. 쓰지 않는 설정은 지우세요."
    raise SettingsError(
        f"{task.name} 태스크가 이 데이터에서 읽지 않는 열이 설정되어 있습니다: {what}",
        where=f"{raw.where} (있는 열: {_listed(raw.columns)})",
        remedy=f"{' '.join(instead)} 플래그로 쓰세요. {remedy}" if instead else remedy,
    )


def check_meaning(columns: Sequence[Column], task: Task, raw: Raw) -> None:
    """Refuse a source with a column that changes what its rows mean, unless the task reads it.

    Args:
        columns: The columns that the task looks for.
        task: The task.
        raw: The source.

    Raises:
        DataError: There is such a column; the message says what to do about it.
    """
    read = {column.name for column in columns}
    for column in (name for name in raw.columns if name not in read):
        remedy = task.reads.refused_columns.get(column.casefold())
        if remedy is not None:
            raise DataError(f"'{column}' 열은 {task.name} 태스크가 읽지 않습니다.", where=raw.where, remedy=remedy)


def check_label_apart(names: Mapping[str, str], raw: Raw) -> None:
    """Refuse a label that is also what the model reads or what groups the rows; `names` is role → column."""
    same = next((role for role in names if role != "label" and names[role] == names.get("label")), None)
    if same is not None:
        both = f"{with_particle(ROLE_NAMES.get(same, same), '과/와')} {with_particle(ROLE_NAMES['label'], '이/가')}"
        why = (
            "같은 그룹의 행은 train이나 validation 가운데 한쪽에만 들어가므로, 검증할 라벨을 학습하지 못하게 됩니다."
            if same == GROUP
            else "모델이 정답을 그대로 읽게 됩니다."
        )
        raise DataError(
            f"{both} 같은 열입니다: {names[same]}",
            where=raw.where,
            remedy=f"{why} 있는 열: {_listed(raw.columns)}. 서로 다른 열을 고르세요.",
        )


def tell_unread(names: Mapping[str, str], raw: Raw) -> None:
    """Log the source's columns that have no role; `names` is role → column."""
    unread = [column for column in raw.columns if column not in names.values()]
    if unread:
        _log.info("읽지 않는 열: %s (%s)", _listed(unread), raw.where)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" 외 {len(names) - _SHOWN:,}개" if len(names) > _SHOWN else "")


def without_targets(sources: Mapping[str, Raw], task: Task) -> dict[str, str]:
    """Find the splits that lack the column to predict, as test files of competitions do.

    Args:
        sources: The source of each split; `train` is one of them.
        task: The task that reads them.

    Returns:
        Split → the name of the missing column.
    """
    found: dict[str, str] = {}
    for split, raw in sources.items():
        own, as_train = (missing_columns(task.reads.columns(source.columns), raw) for source in (raw, sources["train"]))
        targets = [column for column in as_train if column.target]
        if split != "train" and own and targets:
            found[split] = str(targets[0].name)
    return found


def missing_columns(columns: Sequence[Column], raw: Raw) -> list[Column]:
    """Return the columns that a task cannot do without and the source has not."""
    return [column for column in columns if not (column.optional or _candidates(column, raw.columns))]


def _candidates(column: Column, available: Sequence[str]) -> list[str]:
    """Find the column with the configured name or, if that is the default, every column with a usual name."""
    name = clean_name(column.name or "")
    if name in available:
        return [name]
    return [other for other in available if other.casefold() in column.usual] if column.is_default() else []


def _no_column(column: Column, candidates: Sequence[str], raw: Raw) -> DataError:
    several = f" 후보가 여럿입니다: {', '.join(candidates)}." if candidates else ""
    flag = f"--{column.setting} 열이름" if column.setting in _WITH_FLAGS else f"--set data.{column.setting}=열이름"
    task = next((_TASK_OF[name] for name in raw.columns if name in _TASK_OF), None)
    likely = f"{task} 태스크의 데이터로 보입니다. 그렇다면 --task {task} 플래그를 쓰세요. " if task else ""
    if any(map(_is_rather_a_cell, raw.columns)):
        likely += "첫 줄이 열 이름이 아니라 데이터라면 맨 위에 열 이름을 쓴 줄을 추가하세요(예: text,label). "
    return DataError(
        f"'{column.name}' 열이 없습니다.{several}",
        where=raw.where,
        remedy=f"{likely}있는 열: {_listed(raw.columns)}. data.{column.setting}에 쓰거나 {flag} 플래그로 고르세요.",
    )


def likely_labels(raw: Raw, used: Collection[str]) -> dict[str, list[str]]:
    """Find the columns of a source whose cells look like labels: short texts, of which few differ.

    Args:
        raw: The source; its first rows are read.
        used: Columns that are left out.

    Returns:
        Column → its labels, the most frequent first.
    """
    counts: dict[str, Counter[str]] = {column: Counter() for column in raw.columns if column not in used}
    for row in itertools.islice(raw.rows, _LOOKED_AT):
        for column, labels in counts.items():
            labels[as_label(row.get(column))] += 1
    return {
        column: [label for label, _ in labels.most_common() if label]
        for column, labels in counts.items()
        if 2 <= len(set(labels) - {""}) <= max(2, min(_MOST_LABELS, labels.total() // 2))
        and max(map(len, labels)) <= _LONGEST_LABEL
    }


def _is_rather_a_cell(name: str) -> bool:
    """Return whether a column's name looks like a cell of the first row, in a file without a header."""
    return len(name) > _LONG_NAME or name.count(" ") > 1 or name.isdecimal()
