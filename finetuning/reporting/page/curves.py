"""The curves of a run, from the records of metrics.jsonl."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetuning.reporting.metric_names import display_name

Records = Sequence[Mapping[str, Any]]
MOST_OVERLAID = 10  # runs in one chart
_MOST_POINTS = 300
_NOT_DRAWN = {"step", "epoch", "loss", "train_loss", "threshold", "null_threshold"}
_MOST_METRICS = 3
_GIB = 2**30


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: Its name in the legend.
        x: Optimizer steps, (points,).
        y: Values, (points,).
        has_points: Whether each value is marked, as those of validation are.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    has_points: bool = False


@dataclass(frozen=True)
class Chart:
    """Lines over the steps of a run; title: what they show, with the unit."""

    title: str
    lines: tuple[Line, ...]


def charts_of(records: Records, best_metric: str) -> list[Chart]:
    """Collect the charts of a run.

    Args:
        records: The records of metrics.jsonl.
        best_metric: The metric that chooses the best model.

    Returns:
        Loss, validation metrics, learning rate, speed and memory; those without a value are left out.
    """
    losses = (
        _line(records, "train", "loss", "학습 손실"),
        _line(records, "eval", "loss", "검증 손실", has_points=True),
    )
    metrics = [
        _line(records, "eval", name, display_name(name), has_points=True) for name in _drawn(records, best_metric)
    ]
    charts = [
        Chart("손실", losses),
        Chart("검증 지표", tuple(metrics)),
        Chart("학습률", (_line(records, "train", "lr", "학습률"),)),
        Chart("속도 (예제/초)", (_line(records, "train", "examples_per_s", "예제/초"),)),
        Chart("메모리 (GiB)", (_line(records, "train", "memory_bytes", "메모리", unit=_GIB),)),
    ]
    filled = (Chart(one.title, tuple(line for line in one.lines if len(line.x))) for one in charts)
    return [one for one in filled if one.lines]


def overlays_of(runs: Sequence[tuple[str, Records]], metric: str) -> list[Chart]:
    """Collect the curves of several runs, the same of each in one chart.

    Args:
        runs: Name and records of each run; those after the tenth are left out.
        metric: The metric that chooses the best model.

    Returns:
        The metric and the loss of validation, and the loss of training; those without a value are left out.
    """
    wanted = [
        ("eval", metric, f"검증 {display_name(metric)}"),
        ("eval", "loss", "검증 손실"),
        ("train", "loss", "학습 손실"),
    ]
    charts = []
    for kind, field, title in dict.fromkeys(wanted):
        lines = [_line(records, kind, field, name, kind == "eval") for name, records in runs[:MOST_OVERLAID]]
        if any(len(line.x) for line in lines):
            charts.append(Chart(title, tuple(lines)))
    return charts


def _drawn(records: Records, best_metric: str) -> list[str]:
    """Return the validation metrics to draw: the one that chooses the model, and others of its scale."""
    last = next((record for record in reversed(records) if record.get("kind") == "eval"), {})
    values = {
        name: float(value)
        for name, value in last.items()
        if name not in _NOT_DRAWN and isinstance(value, int | float) and not isinstance(value, bool)
    }
    if best_metric not in values:
        return list(values)[:1]  # such as the perplexity of a language model
    is_share = values[best_metric] <= 1
    others = [name for name, value in values.items() if name != best_metric and (value <= 1) == is_share]
    return [best_metric, *others][:_MOST_METRICS]


def _line(
    records: Records, kind: str, field: str, name: str, has_points: bool = False, unit: float = 1.0
) -> Line:  # fmt: skip
    points = list(_points(records, kind, field))
    x, y = (np.array(values, dtype=np.float64) for values in (zip(*points, strict=True) if points else ((), ())))
    return Line(name, *_thinned(x, y / unit), has_points)


def _points(records: Records, kind: str, field: str) -> Iterator[tuple[float, float]]:
    for record in records:
        step, value = record.get("step"), record.get(field)
        if record.get("kind") == kind and isinstance(step, int | float) and isinstance(value, int | float):
            yield float(step), float(value)


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return at most 300 points, each the mean of a stretch of those that were recorded."""
    if len(x) <= _MOST_POINTS:
        return x, y
    edges = np.linspace(0, len(x), _MOST_POINTS + 1).astype(int)
    sizes = np.diff(edges)
    return x[edges[1:] - 1], np.add.reduceat(y, edges[:-1]) / sizes
