"""Triton kernels of the vocabulary loss: each reads a block's logits once, where torch's own operators take ten passes.

The logits become their gradients in place, as in Liger Kernel (Hsu et al. 2024). Sums are float32. Triton comes with
torch for CUDA; import this module only where it is there.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from finetuning.ops.hollow import Hollow

_PIECES = 4096  # of the vocabulary that a program reads at once
_WARPS = 8


class Sums(NamedTuple):
    """What a block's logits sum up to; each has shape (items,) and is float32.

    Attributes:
        losses: The cross-entropy of each item.
        log_sums: The logarithm of the sum of exponentials.
        chosen: The logit of each item's token.
        means: The mean logit.
    """

    losses: torch.Tensor
    log_sums: torch.Tensor
    chosen: torch.Tensor
    means: torch.Tensor


def sums_of(logits: torch.Tensor, wanted: torch.Tensor) -> Sums:
    """Read logits once.

    Args:
        logits: Shape (items, vocabulary), contiguous, in 16 or 32 bits.
        wanted: Token ids, int64, (items,).

    Returns:
        The sums.
    """
    items, vocabulary = logits.shape
    sums = Sums(*logits.new_empty(4, items, dtype=torch.float32).unbind(0))
    if items and not isinstance(logits, Hollow):  # a count of memory has no values
        _sums[items,](logits, wanted, *sums, VOCABULARY=vocabulary, PIECES=_PIECES, num_warps=_WARPS)
    return sums


def turn_into_gradients(
    logits: torch.Tensor, wanted: torch.Tensor, log_sums: torch.Tensor, weights: torch.Tensor | None, smoothing: float
) -> None:
    """Replace logits by the gradient of their loss: softmax less the target, times the item's weight.

    Args:
        logits: As for sums_of.
        wanted: As for sums_of.
        log_sums: Of sums_of.
        weights: What each item's gradient is multiplied by, (items,), float32; None is one.
        smoothing: Share of each target that is spread over the whole vocabulary.
    """
    items, vocabulary = logits.shape
    if not items or isinstance(logits, Hollow):
        return
    grid = (items, triton.cdiv(vocabulary, _PIECES))
    _gradients[grid](
        logits, wanted, log_sums, log_sums if weights is None else weights, smoothing,
        VOCABULARY=vocabulary, HAS_WEIGHTS=weights is not None, PIECES=_PIECES, num_warps=_WARPS,
    )  # fmt: skip


def compute_as_torch(device: torch.device) -> bool:
    """Return whether the kernels run on a device and agree with torch on a few numbers."""
    logits = torch.linspace(-2, 3, 24, device=device).view(3, 8)
    wanted = torch.tensor([7, 0, 3], device=device)
    expected = torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
    error = logits.softmax(-1) - torch.nn.functional.one_hot(wanted, 8)
    sums = sums_of(logits, wanted)
    turn_into_gradients(logits, wanted, sums.log_sums, None, 0.0)
    return torch.allclose(sums.losses, expected, atol=1e-4) and torch.allclose(logits, error, atol=1e-4)


def add_product(sums: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """Add left @ right to float32 sums within cuBLAS's product, which does not round it to its factors' dtype first.

    Args:
        sums: Shape (rows, columns), float32.
        left: Shape (rows, items), in 16 bits.
        right: Shape (items, columns), the same.
    """
    if not isinstance(sums, Hollow):
        torch.addmm(sums, left, right, out_dtype=torch.float32, out=sums)


@triton.jit
def _sums(logits, wanted, losses, log_sums, chosen, means, VOCABULARY: tl.constexpr, PIECES: tl.constexpr):  # type: ignore[no-untyped-def]
    """Sum up one item's logits; each lane keeps its own largest one, from which its exponentials are taken."""
    item = tl.program_id(0).to(tl.int64)
    row = logits + item * VOCABULARY
    top = tl.full((PIECES,), -3.4e38, tl.float32)  # a logit of minus infinity stays below it
    above = tl.zeros((PIECES,), tl.float32)
    total = tl.zeros((PIECES,), tl.float32)
    for first in range(0, VOCABULARY, PIECES):
        columns = first + tl.arange(0, PIECES)
        is_there = columns < VOCABULARY
        values = tl.load(row + columns, mask=is_there, other=-float("inf")).to(tl.float32)
        higher = tl.maximum(top, values)
        above = above * tl.exp(top - higher) + tl.exp(values - higher)
        top = higher
        total += tl.where(is_there, values, 0.0)
    highest = tl.max(top, 0)
    log_above = tl.log(tl.sum(above * tl.exp(top - highest), 0))
    own = tl.load(row + tl.load(wanted + item)).to(tl.float32)
    tl.store(losses + item, highest - own + log_above)
    tl.store(log_sums + item, highest + log_above)
    tl.store(chosen + item, own)
    tl.store(means + item, tl.sum(total, 0) / VOCABULARY)


@triton.jit
def _gradients(  # type: ignore[no-untyped-def]
    logits,
    wanted,
    log_sums,
    weights,
    smoothing,
    VOCABULARY: tl.constexpr,
    HAS_WEIGHTS: tl.constexpr,
    PIECES: tl.constexpr,
):
    """Turn some of one item's logits into gradients."""
    item = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * PIECES + tl.arange(0, PIECES)
    places = logits + item * VOCABULARY + columns
    is_there = columns < VOCABULARY
    values = tl.load(places, mask=is_there, other=0.0).to(tl.float32)
    error = tl.exp(values - tl.load(log_sums + item)) - smoothing / VOCABULARY
    error = tl.where(columns == tl.load(wanted + item), error + (smoothing - 1.0), error)
    if HAS_WEIGHTS:
        error = error * tl.load(weights + item)
    tl.store(places, error.to(logits.dtype.element_ty), mask=is_there)
