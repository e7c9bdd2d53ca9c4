"""Ways to train the same data in less memory, in the order in which they cost least, and the first that fits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from memory_estimate import Estimate

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

    def changes_from(self, other: Option) -> str:
        """What differs from another option, as the command line takes it."""
        keys = {
            "gradient_checkpointing": "memory.gradient_checkpointing",
            "batch_size": "data.batch_size",
            "gradient_accumulation_steps": "memory.gradient_accumulation_steps",
            "dtype": "model.dtype",
            "optimizer": "training.optimizer",
            "adapter": "model.adapter.method",
            "max_length": "data.max_length",
        }
        different = [name for name in keys if getattr(self, name) != getattr(other, name)]
        return " ".join(f"--set {keys[name]}={str(getattr(self, name)).lower()}" for name in different)


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
