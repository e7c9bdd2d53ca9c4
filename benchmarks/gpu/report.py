"""Answers as tables: what was asked and how it ended, and what was measured beside what it should be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu.plan import Facts
from benchmarks.runner import Table

Lines = Sequence[Facts]


@dataclass(frozen=True)
class Goal:
    """What a check should show.

    Attributes:
        name: Its name in results and in the documents' table.
        wanted: What it should be, as text.
        values: Finds the values in a run's lines; several where the check has several.
        meets: Whether a value is good.
    """

    name: str
    wanted: str
    values: Callable[[Lines], list[float]]
    meets: Callable[[float], bool]


def _facts(lines: Lines, check: str, fact: str) -> Iterator[Any]:
    """Yield a fact of a check's lines, wherever it is one."""
    return (line[fact] for line in lines if line["check"] == check and line.get(fact) is not None)


def _of(check: str, fact: str, name: str) -> Callable[[Lines], list[float]]:
    """Return what finds an entry of a fact that has names."""
    return lambda lines: [found[name] for found in _facts(lines, check, fact) if name in found]


def _all(checks: Sequence[str], fact: str) -> Callable[[Lines], list[float]]:
    return lambda lines: [found for check in checks for found in _facts(lines, check, fact)]


GOALS = (
    Goal("short-trainer", "≥ 3", _of("short", "ours_is", "trainer"), lambda value: value >= 3),
    Goal("short-tuned", "≥ 1.3", _of("short", "ours_is", "trainer-tuned"), lambda value: value >= 1.3),
    Goal("chat-packing", "≥ 1.5", _of("peers", "ours_is", "sft-packing"), lambda value: value >= 1.5),
    Goal("chat-packing-liger", "≥ 1.5", _of("peers", "ours_is", "sft-packing-liger"), lambda value: value >= 1.5),
    Goal("rows-trainer", "≥ 1", _of("rows", "ours_is", "trainer"), lambda value: value >= 1),
    Goal("rows-rate", "≥ 0.5", _of("rows", "share_of_rate", "ours"), lambda value: value >= 0.5),
    Goal("full-1b-gib", "< 8", _all(("full-1b",), "process_gib"), lambda value: value < 8),
    Goal("qlora-8b-gib", "< 10", _all(("qlora",), "process_gib"), lambda value: value < 10),
    Goal("estimate", "0.85–1.15", _all(("full-1b", "estimate", "qlora"), "estimate_of_peak"),
         lambda value: 0.85 <= value <= 1.15),
    Goal("waits", "0", _all(("waits",), "waits"), lambda value: value == 0),
    Goal("resumed", "1", _all(("resume",), "same_if_deterministic"), bool),
)  # fmt: skip


def goals(lines: Lines) -> Table:
    """The goals that were measured."""
    rows = []
    for goal in GOALS:
        if values := [float(value) for value in goal.values(lines)]:
            met = all(map(goal.meets, values))
            rows.append({"goal": goal.name, "wanted": goal.wanted, "measured": values, "met": "yes" if met else "no"})
    return Table(("goal", "wanted", "measured", "met"), rows, "What it should be, and what it is")


def outcomes(lines: Lines) -> Table:
    """How each check ended."""
    rows = []
    for line in lines:
        ended = next((word for word in ("answered", "failed", "skipped") if word in line), None)
        if ended is not None:
            why = "" if ended == "answered" else str(line[ended]).strip().splitlines()[-1]
            rows.append({"check": line["check"], "ended": ended, "seconds": line.get("took_s"),
                         "cost": line.get("cost_s"), "why": why})  # fmt: skip
    return Table(("check", "ended", "seconds", "cost", "why"), rows, "How the checks ended")
