"""The metrics of a mixture's datasets, each by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from finetuning.data.examples import Examples
from finetuning.data.table import numbers
from finetuning.reporting.metric_names import metrics_line
from finetuning.tasks.base import Task
from finetuning.tasks.generation.shared import Answer


def lines_by_dataset(
    task: Task, predictions: Sequence[Any], examples: Examples, label_names: Sequence[str]
) -> list[str]:
    """Measure each dataset of a mixture.

    Args:
        task: The task.
        predictions: One for each row of the split.
        examples: The split.
        label_names: Label names in the order of their ids.

    Returns:
        A line for each dataset with its metrics, without those that need a loss that was not kept by row; none for a
        split of one dataset.
    """
    if len(examples.drawn) < 2:
        return []
    owners = np.searchsorted([part.first for part in examples.drawn], numbers(examples.rows, "row")) - 1
    lines = ["데이터셋별 지표"]
    for number, part in enumerate(examples.drawn):
        places = np.flatnonzero(owners == number)
        rows = examples.rows.select(places)
        own = [predictions[place] for place in places.tolist()]
        columns = {name: rows[name][:] for name in rows.column_names}
        found = task.scores.metrics(own, columns, label_names, _loss_of(own)) if own else {}
        known = {name: value for name, value in found.items() if math.isfinite(value)}
        lines.append(f"  {part.name} {len(own):,}행: {metrics_line(known)}")
    return lines


def _loss_of(predictions: Sequence[Any]) -> float:
    """Return the mean loss where predictions keep it, else NaN."""
    kept = [one for one in predictions if isinstance(one, Answer)]
    items = sum(one.items for one in kept)
    return sum(one.loss_sum for one in kept) / items if items else math.nan
