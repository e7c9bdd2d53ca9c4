"""Padded rows as one dense row of their real tokens, and back."""

from __future__ import annotations

from typing import Any

import torch

from finetuning.types import DenseTokens


def to_dense(padded: torch.Tensor, tokens: DenseTokens) -> torch.Tensor:
    """Return the real tokens of padded rows: (rows, tokens, width) → (tokens.length, width).

    Each place is read once, so that the backward pass writes every row once. Rows without padding are not copied.
    """
    flat = padded.flatten(0, 1)
    if tokens.is_whole:
        return flat
    gathered: torch.Tensor = _Gathered.apply(flat, tokens) if _on_cpu(flat, tokens) else _selected(flat, tokens)
    return gathered


def ids_to_dense(ids: torch.Tensor, tokens: DenseTokens) -> torch.Tensor:
    """Return what is looked up for real tokens: (rows or 1, tokens) int64 → (1, tokens.length), 0 where it is filled.

    One row stands for all, as positions do.
    """
    flat = torch.nn.functional.pad(ids.expand(tokens.spread.shape).flatten(), (0, 1))  # one behind them, if is_filled
    return torch.nn.functional.pad(flat[tokens.gather], (0, tokens.length - len(tokens.gather)))[None]


def to_padded(dense: torch.Tensor, tokens: DenseTokens) -> torch.Tensor:
    """Return real tokens as padded rows: (tokens.length, width) → (rows, tokens, width). Nothing may depend on padding.

    Padding repeats a token on a CPU, and is zero on a GPU. The backward pass only reads: that of a look-up, in which
    padding repeats a token, would add up gradients of padding, which are zero; on a GPU in an order that varies.
    """
    if tokens.is_whole:
        return dense.reshape(*tokens.spread.shape, -1)
    spread: torch.Tensor = _Spread.apply(dense, tokens) if _on_cpu(dense, tokens) else _written(dense, tokens)
    return spread


def by_head(tokens: DenseTokens, heads: int) -> DenseTokens:
    """Return the maps of rows of one head each: a token's heads are tokens, next to each other in the dense row.

    Attention computes by heads. What these maps gather is in its order, and is not copied once more.

    Args:
        tokens: The maps; see can_be_by_head.
        heads: Heads of a token.

    Returns:
        The maps between (tokens × heads, width) and (rows × heads, tokens of a row, width). Made once a micro-batch.
    """
    key = ("heads", heads)
    if key not in tokens.made:
        rows, longest = tokens.spread.shape
        each = torch.arange(heads)
        spread = tokens.spread[:, None] * heads + each[:, None]  # (rows, heads, tokens)
        row, place = tokens.gather // longest, tokens.gather % longest
        gather = (row[:, None] * heads + each) * longest + place[:, None]
        tokens.made[key] = DenseTokens(gather.flatten(), spread.view(rows * heads, longest), None, None)
    found: DenseTokens = tokens.made[key]
    return found


def can_be_by_head(tokens: DenseTokens) -> bool:
    """Return whether there are such maps: of rows with padding on a CPU, whose dense row has their tokens alone.

    A compiler has none: to keep them is a side effect, and makes the first layer of a model unlike the others.
    """
    is_plain = tokens.repeated is None and tokens.multiple == 1 and not torch.compiler.is_compiling()
    return is_plain and not tokens.is_whole and _on_cpu(tokens.gather, tokens)


def _on_cpu(tensor: torch.Tensor, tokens: DenseTokens) -> bool:
    return tensor.device.type == "cpu" and not tokens.is_filled


class _Gathered(torch.autograd.Function):
    """The real tokens of flattened padded rows, and zeros up to the dense row's length."""

    @staticmethod
    def forward(context: Any, flat: torch.Tensor, tokens: DenseTokens) -> torch.Tensor:
        context.tokens, context.places = tokens, len(flat)
        return _lengthened(flat.index_select(0, tokens.gather), tokens.length)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        gather, (gradient,) = context.tokens.gather, gradients
        written = gradient.new_zeros(context.places, gradient.shape[-1])
        return written.index_copy_(0, gather, gradient[: len(gather)]), None


class _Spread(torch.autograd.Function):
    """A dense row as padded rows, whose padding has no gradient."""

    @staticmethod
    def forward(context: Any, dense: torch.Tensor, tokens: DenseTokens) -> torch.Tensor:
        context.tokens = tokens
        return dense.index_select(0, tokens.spread.flatten()).view(*tokens.spread.shape, -1)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        tokens, flat = context.tokens, gradients[0].flatten(0, 1)
        read = flat.index_select(0, tokens.gather)
        if tokens.repeated is not None:
            sources, copies = tokens.repeated
            read.index_add_(0, sources, flat.index_select(0, copies))
        return _lengthened(read, tokens.length), None


def _selected(flat: torch.Tensor, tokens: DenseTokens) -> torch.Tensor:
    if tokens.is_filled:  # any row will do for what nothing reads
        return flat.index_select(0, tokens.gather.clamp(max=len(flat) - 1))
    return _lengthened(flat.index_select(0, tokens.gather), tokens.length)


def _written(dense: torch.Tensor, tokens: DenseTokens) -> torch.Tensor:
    """Return real tokens as padded rows, with zeros as padding; shapes as of to_padded."""
    (rows, longest), width = tokens.spread.shape, dense.shape[-1]
    places = rows * longest + tokens.is_filled
    padded = dense.new_zeros(places, width).index_copy_(0, tokens.gather, dense[: len(tokens.gather)])
    if tokens.repeated is not None:
        sources, copies = tokens.repeated
        padded = padded.index_copy_(0, copies, dense.index_select(0, sources))
    return padded[: rows * longest].view(rows, longest, width)


def _lengthened(rows: torch.Tensor, length: int) -> torch.Tensor:
    """Return rows with zeros behind them: (n, width) → (length, width)."""
    missing = length - len(rows)
    return rows if not missing else torch.nn.functional.pad(rows, (0, 0, 0, missing))
