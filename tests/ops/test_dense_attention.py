"""Rows of real tokens and padded rows: both ways, and their gradients, are those of plain indexing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from finetuning.ops import dense_rows
from finetuning.ops.dense_attention import branching_tokens, causal_tokens, dense_tokens, filled_tokens
from finetuning.types import DenseTokens

_MASK = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
_SHAPES: dict[str, Callable[[], DenseTokens]] = {
    "an encoder's": lambda: dense_tokens(_MASK),
    "an encoder's, without padding": lambda: dense_tokens(torch.ones(3, 4, dtype=torch.long)),
    "an encoder's, rounded up": lambda: dense_tokens(_MASK, multiple=4),
    "causal": lambda: causal_tokens([2, 4, 1]),
    "branches": lambda: branching_tokens([(2, (1, 2)), (0, (3,)), (1, (1, 1))]),
}


@pytest.mark.parametrize("to_padded", [dense_rows._written, dense_rows._Spread.apply], ids=["GPU", "CPU"])
@pytest.mark.parametrize("shape", _SHAPES)
def test_a_dense_row_as_padded_rows(shape: str, to_padded: Callable[..., torch.Tensor]) -> None:
    """Each real place has its token; nothing reads padding, so each token's gradient is that of its places."""
    tokens = _SHAPES[shape]()
    is_real = torch.zeros(tokens.spread.numel(), dtype=torch.bool)
    is_real[tokens.gather] = True
    if tokens.repeated is not None:
        is_real[tokens.repeated[1]] = True
    weights = torch.randn(int(is_real.sum()), 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    values, gradients = [], []
    for way in (to_padded, lambda dense, maps: dense[maps.spread]):
        dense = torch.randn(tokens.length, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        dense.requires_grad_()
        real = way(dense, tokens).flatten(0, 1)[is_real]
        (real * weights).sum().backward()
        values.append(real)
        gradients.append(dense.grad)
    assert torch.equal(*values)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


@pytest.mark.parametrize("to_dense", [dense_rows._selected, dense_rows._Gathered.apply], ids=["GPU", "CPU"])
@pytest.mark.parametrize("shape", _SHAPES)
def test_padded_rows_as_a_dense_row(shape: str, to_dense: Callable[..., torch.Tensor]) -> None:
    """Each token is that of its first place; padding has no gradient, and what rounds the length up is zero."""
    tokens = _SHAPES[shape]()
    flat = torch.randn(tokens.spread.numel(), 5, dtype=torch.float64).requires_grad_()
    dense = to_dense(flat, tokens)
    assert torch.equal(dense[: len(tokens.gather)], flat[tokens.gather])
    assert len(dense) == tokens.length and not dense[len(tokens.gather) :].any()
    upstream = torch.randn_like(dense)
    dense.backward(upstream)
    expected = torch.zeros_like(flat)
    expected[tokens.gather] = upstream[: len(tokens.gather)]
    assert flat.grad is not None and torch.equal(flat.grad, expected)


def test_rows_without_padding_are_not_copied() -> None:
    tokens, rows = dense_tokens(torch.ones(3, 4, dtype=torch.long), multiple=4), torch.randn(3, 4, 5)
    dense = dense_rows.to_dense(rows, tokens)
    assert dense.shape == (12, 5)
    assert dense.data_ptr() == rows.data_ptr() == dense_rows.to_padded(dense, tokens).data_ptr()


@pytest.mark.parametrize("lengths", [(2, 4, 1), (4, 4, 4), (1, 1, 1)])
def test_filled_rows_are_rows_of_one_shape(lengths: tuple[int, ...]) -> None:
    """Real tokens and gradients of the rows that are not filled, in shapes that do not tell how many are real."""
    mask = (torch.arange(4) < torch.tensor(lengths)[:, None]).long()
    plain, filled = dense_tokens(mask, multiple=16), filled_tokens(mask, None, 16)
    values, gradients = [], []
    for tokens in (plain, filled):
        rows = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
        dense = dense_rows.to_dense(rows, tokens)
        assert dense.shape == (16, 5)
        padded = dense_rows.to_padded(dense**2, tokens)[mask.bool()]
        (padded * torch.arange(5)).sum().backward()
        values.append(padded)
        gradients.append(rows.grad)
    assert torch.equal(*values) and torch.equal(*gradients)
    assert filled.bounds is not None and filled.bounds.tolist() == [0, *torch.tensor(lengths).cumsum(0).tolist(), 16]
    assert len(filled.gather) == filled.length == 16 and not filled.is_whole
