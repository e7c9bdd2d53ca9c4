"""A tagging task and its label names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from exceptions import BadRow
from finetuning.config.schema import Settings
from finetuning.tasks.registry import find_task
from finetuning.tasks.tagging.decoding import TaggedToken
from finetuning.tasks.tagging.spans import read_iob2

NAMES = ["O", "B-OG", "I-OG", "B-PS", "I-PS"]


def task_of(**data: Any) -> Any:
    return find_task(Settings.model_validate({"model": {"task": "ner"}, "data": data}))


def as_tagged(tokens: Iterable[tuple[int, int, int, float]]) -> list[TaggedToken]:
    """Tokens (start, end, tag id, probability) whose own likeliest tag is their tag."""
    return [TaggedToken(*token, raw=token[2]) for token in tokens]


def is_legal(tags: Sequence[str]) -> bool:
    """Whether tags are IOB2: no I- without an entity of its kind before it."""
    try:
        read_iob2(tags)
    except BadRow:
        return False
    return True
