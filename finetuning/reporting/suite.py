"""Scores of public benchmarks before and after training: what was gained, and what was forgotten."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from finetuning.reporting.text_table import table_lines

_CERTAIN = 1.96  # standard errors; a difference within them may be chance
_MOST_TASKS, _MOST_NAMES = 20, 12  # that the log shows; the report and the file have all
_NUMBERS = frozenset({1, 3, 4, 5})  # columns that are aligned to the right
Outcome = Literal["gained", "forgotten", "same", ""]
_OUTCOMES: Mapping[Outcome, str] = {"gained": "나아짐", "forgotten": "나빠짐", "same": "차이 없음", "": ""}


@dataclass(frozen=True)
class TaskScore:
    """A model's score on a task, or on a group of tasks.

    Attributes:
        name: Its name in lm-evaluation-harness.
        level: 0 for what was asked for, 1 for its members.
        is_group: Whether it is a group.
        rows: Number of questions.
        metric: The metric that is shown.
        metrics: All metrics, with their standard errors as `acc_stderr`.
        each: The metric of each question, where it is their mean; else empty.
    """

    name: str
    level: int
    is_group: bool
    rows: int
    metric: str
    metrics: Mapping[str, float]
    each: tuple[float, ...] = ()

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Self:
        """Read a score back from JSON."""
        return cls(**{**found, "each": tuple(found["each"])})

    @property
    def score(self) -> float:
        """The metric that is shown."""
        return self.metrics[self.metric]

    @property
    def error(self) -> float | None:
        """Its standard error, where there is one."""
        return self.metrics.get(f"{self.metric}_stderr")


@dataclass(frozen=True)
class TaskChange:
    """A task's score, beside that of the model before training.

    Attributes:
        after: The score.
        before: That of the base model, or None where it was not scored.
    """

    after: TaskScore
    before: TaskScore | None = None

    @property
    def difference(self) -> float | None:
        """How much the score rose; None without a base model."""
        return None if self.before is None else self.after.score - self.before.score

    @property
    def error(self) -> float | None:
        """The standard error of the difference, question by question where their scores are known."""
        if self.before is None:
            return None
        if self.after.each and len(self.after.each) == len(self.before.each):
            moved = np.array(self.after.each) - np.array(self.before.each)
            return float(moved.std(ddof=1) / math.sqrt(len(moved))) if len(moved) > 1 else None
        errors = (self.after.error, self.before.error)
        return None if None in errors else math.hypot(*(error or 0.0 for error in errors))

    @property
    def outcome(self) -> Outcome:
        """Whether the score rose or fell by more than chance explains; "" where that is not known."""
        if self.difference is None or self.error is None:
            return ""
        if abs(self.difference) <= _CERTAIN * self.error:
            return "same"
        return "gained" if self.difference > 0 else "forgotten"

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells of its row in a table; see `header`."""
        name = f"{'  ' * self.after.level}{self.after.name}"
        measured = (name, f"{self.after.rows:,}", self.after.metric)
        if self.before is None or self.difference is None:
            return (*measured, _with_error(self.after.score, self.after.error))
        scores = [_with_error(one.score, one.error) for one in (self.before, self.after)]
        return (*measured, *scores, _with_error(self.difference, self.error, sign="+"), _OUTCOMES[self.outcome])


@dataclass(frozen=True)
class SuiteReport:
    """A suite's scores.

    Attributes:
        names: What was asked for.
        model: The model.
        base: The model before training, or None where it was not scored.
        changes: Tasks and groups, in the order in which they are shown.
        version: The version of the package whose tasks they are.
        harness: Its name.
    """

    names: Sequence[str]
    model: str
    base: str | None
    changes: Sequence[TaskChange]
    version: str
    harness: str = "lm_eval"

    @property
    def header(self) -> tuple[str, ...]:
        """The names of the table's columns."""
        scores = ("점수",) if self.base is None else ("학습 전", "학습 후", "변화", "판정")
        return ("과제", "문항", "지표", *scores)

    @property
    def tasks(self) -> list[TaskChange]:
        """The tasks without the groups."""
        return [one for one in self.changes if not one.after.is_group]

    @property
    def summary(self) -> str:
        """What was gained and what was forgotten, in a line; "" where nothing is compared."""
        if self.base is None:
            return ""
        names = {kind: [one.after.name for one in self.tasks if one.outcome == kind] for kind in _OUTCOMES}
        listed = {kind: "" if kind == "same" else _listed(own) for kind, own in names.items()}
        found = [f"{_OUTCOMES[kind]} {len(own):,}개{listed[kind]}" for kind, own in names.items() if kind and own]
        return f"학습 전과 비교한 과제 {len(self.tasks):,}개: {', '.join(found)}" if found else ""


def lines_of(report: SuiteReport) -> list[str]:
    """Render a table for a terminal: groups, and tasks where there are few."""
    shown = [one.cells for one in report.changes if one.after.is_group or len(report.tasks) <= _MOST_TASKS]
    lines = table_lines(report.header, shown or [one.cells for one in report.changes], right=_NUMBERS)
    left_out = len(report.changes) - len(lines) + 2
    notes = [report.summary] if report.summary else []
    if left_out:
        notes.append(f"묶음의 점수만 보입니다. 과제 {left_out:,}개의 점수는 파일에 있습니다.")
    return [*lines, *notes]


def record_of(report: SuiteReport) -> dict[str, object]:
    """Return the content of the file of a suite's scores."""
    return {
        "split": "suite",
        "rows": sum(one.after.rows for one in report.tasks),
        "suite": list(report.names),
        "model": report.model,
        "base": report.base,
        report.harness: report.version,
        "tasks": [_record(change) for change in report.changes],
    }


def _record(change: TaskChange) -> dict[str, object]:
    after, before = change.after, change.before
    found = {"task": after.name, "group": after.is_group, "rows": after.rows, "metrics": dict(after.metrics)}
    if before is None:
        return found
    moved = {"metric": after.metric, "difference": change.difference, "stderr": change.error, "outcome": change.outcome}
    return {**found, "base_metrics": dict(before.metrics), "change": moved}


def _with_error(value: float, error: float | None, sign: str = "") -> str:
    return f"{value:{sign}.4f}" + ("" if error is None else f" ±{error:.4f}")


def _listed(names: Sequence[str]) -> str:
    return f"({', '.join(names)})" if len(names) <= _MOST_NAMES else ""
