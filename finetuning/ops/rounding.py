"""Stochastic rounding from float32 to bfloat16."""

from __future__ import annotations

import torch


def stochastically_rounded(values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Round each value to one of its two bfloat16 neighbours, with probability proportional to proximity.

    So the rounding is unbiased: an update smaller than half of the distance to the next bfloat16 counts in expectation.
    Adding 16 random bits carries into the upper half of the float32 that bfloat16 keeps. Infinity has no bits there
    that could carry; those of NaN could, so NaN is kept.

    Args:
        values: float32, any shape. Values that are not finite keep their value.
        generator: Draws the random bits; it is of the values' device.

    Returns:
        bfloat16 values of the same shape.
    """
    bits = values.contiguous().view(torch.int32)
    noise = torch.randint(1 << 16, bits.shape, dtype=bits.dtype, device=bits.device, generator=generator)
    rounded = noise.add_(bits).bitwise_and_(-(1 << 16)).view(torch.float32)
    return torch.where(values.isnan(), values, rounded).to(torch.bfloat16)
