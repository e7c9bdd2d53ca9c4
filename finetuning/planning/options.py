"""Ways to train the same data in less memory, in the order in which they cost least, and the first that fits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from finetuning.planning.estimate import Estimate

_SHORTEST = 64  # tokens; texts cut shorter than this are another task


@dataclass(frozen=True)
class Option:
    """What of a run decides its memory, besides its model and data.

    dtype: `model.dtype`; optimizer: `training.optimizer`; adapter: `model.adapter.method`.
    """

    max_length: int
    batch_size: int
    gradient_accumulation_steps: int
    gradient_checkpointing: bool
    dtype: str
    optimizer: str
    adapter: str

    @property
    def token_budget(self) -> int:
        """Padded tokens in a micro-batch at most, as MemoryManager begins with."""
        return self.batch_size * self.max_length

    def different(self, other: Option) -> dict[str, Any]:
        """What differs from another option, by the settings' dotted names."""
        keys = {
            "gradient_checkpointing": "memory.gradient_checkpointing",
            "batch_size": "data.batch_size",
            "gradient_accumulation_steps": "memory.gradient_accumulation_steps",
            "dtype": "model.dtype",
            "optimizer": "training.optimizer",
            "adapter": "model.adapter.method",
            "max_length": "data.max_length",
        }
        return {key: getattr(self, name) for name, key in keys.items() if getattr(self, name) != getattr(other, name)}

    def changes_from(self, other: Option) -> str:
        """The same as the command line takes it."""
        return " ".join(f"--set {key}={str(value).lower()}" for key, value in self.different(other).items())


def automatic_options(
    option: Option, can_checkpoint: bool, has_8bit_optimizer: bool, may_round_weights: bool,
    may_change_optimizer: bool,
) -> list[Option]:  # fmt: skip
    """What `memory.optimize_memory_usage` may choose, each with those before it, in the order of what they change.

    Gradient checkpointing changes nothing; step by step, on tiny models, losses differed by up to 8.3e-5 of themselves
    with 8-bit moments, 3.7e-4 with bfloat16 weights, 0.022 with Adafactor, which is for where bitsandbytes is not.
    Only what was left at its default is changed.
    """
    found, is_changed = [option], may_change_optimizer and option.optimizer == "adamw"
    if can_checkpoint and not option.gradient_checkpointing:
        found.append(replace(found[-1], gradient_checkpointing=True))
    if is_changed and has_8bit_optimizer:
        found.append(replace(found[-1], optimizer="adamw_8bit"))
    if option.dtype == "float32" and may_round_weights:
        found.append(replace(found[-1], dtype="bfloat16"))
    if is_changed and not has_8bit_optimizer:
        found.append(replace(found[-1], optimizer="adafactor"))
    return found[1:]


def cheaper_options(option: Option, can_checkpoint: bool) -> list[Option]:
    """Options that need less and less memory, each with the changes of those before it.

    Gradient checkpointing costs a second forward pass; smaller micro-batches, of the same window, cost speed; bfloat16
    weights and Adafactor are almost the same training; LoRA trains less of the model; a shorter max_length loses text.
    """
    found = [option]
    if can_checkpoint and not option.gradient_checkpointing:
        found.append(replace(found[-1], gradient_checkpointing=True))
    while (size := found[-1].batch_size) % 2 == 0:
        steps = found[-1].gradient_accumulation_steps * 2
        found.append(replace(found[-1], batch_size=size // 2, gradient_accumulation_steps=steps))
    if option.dtype != "bfloat16":
        found.append(replace(found[-1], dtype="bfloat16"))
    if option.optimizer != "adafactor":
        found.append(replace(found[-1], optimizer="adafactor"))
    if option.adapter == "none":
        found.append(replace(found[-1], adapter="lora"))
    while (length := found[-1].max_length // 2) >= _SHORTEST:
        found.append(replace(found[-1], max_length=length))
    return found[1:]


def first_that_fits(
    options: Iterable[Option], estimate_of: Callable[[Option], Estimate], room: int
) -> tuple[Option, Estimate] | None:
    """The first of the options whose estimate is within `room` bytes, and that estimate; None where none is."""
    for option in options:
        estimate = estimate_of(option)
        if estimate.total <= room:
            return option, estimate
    return None
