"""Runs beside each other: a row of each, in the order of their scores, as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

from finetuning.korean.durations import duration
from finetuning.reporting.metric_names import display_name, lower_is_better
from finetuning.reporting.text_table import shortened, table_lines

State = Literal["finished", "running", "stopped", "unsaved"]
_LONGEST_CELLS, _LONGEST_CELL = {"학습": 44, "모델": 28, "데이터": 28}, 200
_NOTHING = "-"
NUMBERS = ("스텝", "시간")
# kind of a finding → the same in a word or two, in the order of the table
_VERDICTS = {
    "learned": "기준보다 나음",
    "not learned": "기준보다 낫지 않음",
    "overfits": "과적합",
    "labels never predicted": "예측 안 한 라벨",
    "few steps": "스텝 적음",
}


@dataclass(frozen=True)
class RunRow:
    """One run.

    Attributes:
        folder: Its folder.
        name: The folder, seen from where the runs were looked for.
        state: `finished`; `running` in another process now; `stopped` with a checkpoint; `unsaved`, stopped without.
        stopped_at: The step of the newest checkpoint of a run that is not finished.
        task: Name of the task; "" where it is not known.
        model: Name or path of the base model; "" where it is not known.
        data: Name or path of the data; "" where it is not known.
        metric: Name of the metric that chooses the best model; "" where it is not known.
        validation: Its best value on validation, by which the saved model was chosen.
        split: The split that `score` is of.
        score: The value of the metric at the end of the run.
        interval: Its bootstrap interval of 95%.
        steps: Optimizer steps taken.
        seconds: Wall clock time.
        findings: Kinds of the findings about it.
    """

    folder: Path
    name: str
    state: State
    stopped_at: int | None = None
    task: str = ""
    model: str = ""
    data: str = ""
    metric: str = ""
    validation: float | None = None
    split: str = ""
    score: float | None = None
    interval: tuple[float, float] | None = None
    steps: int | None = None
    seconds: float | None = None
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunTable:
    """The runs of a task that have the same metric.

    Attributes:
        title: The task and the metric, and what all of its runs share.
        columns: Names of the columns.
        rows: The runs, the best first.
        cells: The cells of each run.
    """

    title: str
    columns: tuple[str, ...]
    rows: Sequence[RunRow]
    cells: Sequence[tuple[str, ...]]


def _in_order(rows: Sequence[RunRow]) -> list[RunRow]:
    """Sort runs by task and metric, then the best score first; those without a score follow by name."""

    def place(row: RunRow) -> tuple[object, ...]:
        score = row.score if row.score is not None else row.validation
        if row.state != "finished" or score is None:
            return (row.task == "", row.task, row.metric == "", row.metric, True, 0.0, row.name)
        value = score if lower_is_better(row.metric) else -score
        return (row.task == "", row.task, row.metric == "", row.metric, False, value, row.name)

    return sorted(rows, key=place)


def _grouped(rows: Sequence[RunRow]) -> Iterator[tuple[str, list[RunRow]]]:
    """Yield the runs of each task and metric in the order of their scores, under a heading in Korean."""
    for (task, metric), members in groupby(_in_order(rows), key=lambda row: (row.task, row.metric)):
        yield f"{task or '태스크를 알 수 없음'}{f' ({display_name(metric)})' if metric else ''}", list(members)


def tables_of(rows: Sequence[RunRow]) -> list[RunTable]:
    """Lay runs out as a table for each task and metric, in the order of their scores."""
    tables = []
    for heading, members in _grouped(rows):
        shared = _shared(members)
        title = ", ".join([heading, *(f"{name} {value}" for name, value in shared.items())])
        cells = [_cells(row) for row in members]
        columns = tuple(name for name in cells[0] if name not in shared)
        tables.append(RunTable(title, columns, members, [tuple(one[name] for name in columns) for one in cells]))
    return tables


def lines_of_runs(rows: Sequence[RunRow]) -> list[str]:
    """Render runs as tables for the terminal, with long names cut in their middle."""
    lines: list[str] = []
    for table in tables_of(rows):
        right = frozenset(place for place, name in enumerate(table.columns) if name in NUMBERS)
        longest = [_LONGEST_CELLS.get(name, _LONGEST_CELL) for name in table.columns]
        cut = [[shortened(cell, most) for cell, most in zip(row, longest, strict=True)] for row in table.cells]
        lines += ["", table.title] if lines else [table.title]
        lines += table_lines(table.columns, cut, right)
    return lines


def _shared(rows: Sequence[RunRow]) -> dict[str, str]:
    """Return the model and the data where all rows have the same: a heading says it once."""
    models, data = {short_source(row.model) for row in rows}, {short_source(row.data) for row in rows}
    both = {"모델": models, "데이터": data}
    return {name: next(iter(values)) for name, values in both.items() if len(rows) > 1 and len(values) == 1}


def _cells(row: RunRow) -> dict[str, str]:
    return {
        "학습": row.name,
        "모델": short_source(row.model),
        "데이터": short_source(row.data),
        "점수 (95% 신뢰구간)": score_text(row),
        "스텝": _NOTHING if row.steps is None else f"{row.steps:,}",
        "시간": _NOTHING if row.seconds is None else duration(row.seconds),
        "판정": verdict_text(row),
    }


def score_text(row: RunRow) -> str:
    """Return the score with its interval and its split, such as `0.7906 (0.731~0.849) test`."""
    if row.score is None:
        return _NOTHING
    within = f" ({row.interval[0]:.3f}~{row.interval[1]:.3f})" if row.interval else ""
    return f"{row.score:.4f}{within} {row.split}"


def verdict_text(row: RunRow) -> str:
    """Return what is to know about a run in a few words; of one that is not finished, where it stopped."""
    at = _NOTHING if row.stopped_at is None else f"{row.stopped_at:,}"
    if row.state == "running":
        return "학습 중" if row.stopped_at is None else f"학습 중 (스텝 {at}까지 저장)"
    if row.state == "stopped":
        return f"중단됨 (스텝 {at}까지 저장)"
    if row.state == "unsaved":
        return "중단됨 (저장된 체크포인트 없음)"
    return ", ".join(text for kind, text in _VERDICTS.items() if kind in row.findings) or _NOTHING


def short_source(name: str) -> str:
    """Return the last part of a path; a Hub id stays whole."""
    is_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name
    return (Path(name.replace("\\", "/")).name or name) if is_path else (name or _NOTHING)
