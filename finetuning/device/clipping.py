"""Clipping of gradients by their norm."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def clipping_factor(norm: torch.Tensor, limit: float) -> torch.Tensor:
    """Return what a gradient is multiplied by, so that its norm is at most the limit.

    Args:
        norm: L2 norm of the whole gradient, a scalar.
        limit: The largest norm.

    Returns:
        A scalar of at most 1, as of torch's clip_grad_norm_.
    """
    return (limit / (norm + 1e-6)).clamp(max=1.0)
