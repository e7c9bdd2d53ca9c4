"""What a window's gradient and an optimizer step leave, on the device until it is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from finetuning.types import Batch


@dataclass(frozen=True)
class WindowGradient:
    """The gradient of a window, stored in the parameters' `grad`, and what it was computed from.

    Attributes:
        sums: Numerators of the window's loss and of what the objective measures, over all processes, on the device.
        counts: The window's counts over all processes: first its items, the denominator of its loss.
        batches: This process's micro-batches.
        consumed_norm: L2 norm of a gradient that was measured or applied inside the backward pass and then dropped, a
            scalar on the device; None if the gradient is stored.
    """

    sums: torch.Tensor
    counts: tuple[float, ...]
    batches: list[Batch]
    consumed_norm: torch.Tensor | None

    @property
    def loss_sum(self) -> torch.Tensor:
        """Numerator of the window's loss, a scalar on the device."""
        return self.sums[0]


@dataclass(frozen=True)
class StepResult:
    """Result of one optimizer step, summed over all processes.

    Attributes:
        sums: Sums of the loss and of what the objective measures over the window's items, on the device; reading them
            waits for the device.
        items: Denominator of the window's loss: its items, or the sum of their weights.
        grad_norm: L2 norm of the gradient before clipping, a scalar on the device. If it or the loss is not finite,
            the step was skipped.
        lr: Learning rate of the step.
        tokens: Real tokens of this process.
        padded_tokens: Tokens that the layers of this process's model computed, padding included, shared ones once.
        overflowed: Whether the gradient overflowed fp16, so that only the loss scale changed.
        uncompiled: How often one of the compiled layers ran its Python code, which shapes may need.
    """

    sums: torch.Tensor
    items: float
    grad_norm: torch.Tensor
    lr: float
    tokens: int
    padded_tokens: int
    overflowed: bool
    uncompiled: int = 0


def sums_and_norms(results: Sequence[StepResult]) -> list[tuple[list[float], float]]:
    """Return (sums, gradient norm) of each step, read from the device in one copy."""
    rows = [torch.cat((result.sums, result.grad_norm.to(result.sums.dtype).reshape(1))) for result in results]
    return [(sums, norm) for *sums, norm in torch.stack(rows).tolist()] if rows else []
