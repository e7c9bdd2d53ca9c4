"""Objectives by name: a row each."""

from __future__ import annotations

from collections.abc import Callable

from finetuning.tasks.base import Task
from finetuning.windows.objectives.base import Objective
from finetuning.windows.objectives.summed import Summed

OBJECTIVES: dict[str, Callable[[Task], Objective]] = {"summed": Summed}


def objective_of(task: Task) -> Objective:
    """Return the objective that a task is trained on."""
    return OBJECTIVES[task.objective](task)
