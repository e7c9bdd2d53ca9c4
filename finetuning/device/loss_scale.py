"""The loss scale of fp16, which keeps small gradients above float16's smallest number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass
class LossScale:
    """A scale that is halved after an overflow and doubled after many good steps in a row (Micikevicius et al. 2018).

    Its numbers are those of torch's GradScaler, which is not used for two reasons. It judges the gradient of each
    process, so that one may skip a step that others take. Its `unscale_` has no kernel for bfloat16 gradients on CUDA.

    Attributes:
        is_enabled: Whether the run computes in fp16. Otherwise nothing is scaled.
        value: The scale, a power of two.
        good_steps: Steps in a row without an overflow since the scale last changed.
        growth_interval: Number of good steps after which the scale is doubled.
    """

    is_enabled: bool
    value: float = 2.0**16
    good_steps: int = 0
    growth_interval: int = 2000

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        """Return the loss times the scale."""
        return loss * self.value if self.is_enabled else loss

    def unscale(self, gradients: Sequence[torch.Tensor]) -> None:
        """Divide gradients of any dtype by the scale, in place. Those that overflowed stay inf or NaN."""
        if self.is_enabled and gradients:
            torch._foreach_mul_(list(gradients), 1 / self.value)

    def can_shrink(self) -> bool:
        """Return whether a smaller scale may help against an overflow."""
        return self.is_enabled and self.value > 1

    def shrink(self) -> None:
        """Halve the scale after an overflow."""
        self.value, self.good_steps = self.value / 2, 0

    def count_good_step(self) -> None:
        """Count a step without an overflow, and double the scale when it is due."""
        self.good_steps += self.is_enabled
        if self.good_steps == self.growth_interval:
            self.value, self.good_steps = self.value * 2, 0

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint, under GradScaler's names; empty without fp16."""
        return {"scale": self.value, "_growth_tracker": self.good_steps} if self.is_enabled else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of `state_dict`, or of a GradScaler."""
        self.value, self.good_steps = float(state["scale"]), int(state["_growth_tracker"])
