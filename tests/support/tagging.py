"""A tagging task and its label names."""

from __future__ import annotations

from typing import Any

from finetuning.config.schema import Settings
from finetuning.tasks.registry import find_task

NAMES = ["O", "B-OG", "I-OG", "B-PS", "I-PS"]


def task_of(**data: Any) -> Any:
    return find_task(Settings.model_validate({"model": {"task": "ner"}, "data": data}))
