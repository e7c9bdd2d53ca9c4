"""Objectives by name, one row each."""

from __future__ import annotations

from collections.abc import Callable

from finetuning.tasks.base import Task
from finetuning.windows.objectives.base import Objective
from finetuning.windows.objectives.contrastive import Contrastive
from finetuning.windows.objectives.preference import Preference
from finetuning.windows.objectives.summed import Summed

OBJECTIVES: dict[str, Callable[[Task], Objective]] = {
    "summed": Summed,
    "preference": Preference,
    "contrastive": Contrastive,
}


def objective_of(task: Task) -> Objective:
    """Return a task's objective."""
    return OBJECTIVES[task.objective](task)
