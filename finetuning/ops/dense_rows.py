"""Padded rows as one dense row of their real tokens, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetuning.types import DenseTokens

if TYPE_CHECKING:
    import torch


def to_dense(padded: torch.Tensor, tokens: DenseTokens) -> torch.Tensor:
    """Return the real tokens of padded rows: (rows, tokens, width) → (real tokens, width).

    Each place is read once, so that the backward pass writes every row once.
    """
    flat = padded.flatten(0, 1)
    return _embedded(flat, tokens.gather) if flat.device.type == "cpu" else flat.index_select(0, tokens.gather)


def to_padded(dense: torch.Tensor, tokens: DenseTokens) -> torch.Tensor:
    """Return real tokens as padded rows: (real tokens, width) → (rows, tokens, width). Nothing may depend on padding.

    On a GPU padding is zero: each token is written once, so that the backward pass only reads. That of a look-up, in
    which padding repeats a token, would sort the places and add them up in an order that varies.
    """
    return _embedded(dense, tokens.spread) if dense.device.type == "cpu" else _written(dense, tokens)


def _written(dense: torch.Tensor, tokens: DenseTokens) -> torch.Tensor:
    """Return real tokens as padded rows, with zeros as padding; shapes as of to_padded."""
    (rows, longest), width = tokens.spread.shape, dense.shape[-1]
    padded = dense.new_zeros(rows * longest, width).index_copy_(0, tokens.gather, dense)
    if tokens.repeated is not None:
        sources, copies = tokens.repeated
        padded = padded.index_copy_(0, copies, dense.index_select(0, sources))
    return padded.view(rows, longest, width)


def _embedded(rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Return `rows[places]`, computed as an embedding look-up because its backward pass is faster on a CPU."""
    import torch

    return torch.nn.functional.embedding(places, rows)
