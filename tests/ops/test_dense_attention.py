"""Rows of real tokens and padded rows: the way of a GPU gives what the way of a CPU gives."""

from __future__ import annotations

import torch

from finetuning.ops import dense_rows
from finetuning.ops.dense_attention import causal_tokens, dense_tokens


def test_tokens_that_are_written_are_those_that_are_looked_up() -> None:
    """Padding differs: zero, or a token again. Nothing that is read depends on it."""
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
    found = dense_tokens(mask)
    assert found is not None
    torch.manual_seed(0)
    for tokens in (found, causal_tokens([2, 4, 1])):
        ends = []
        for to_padded in (
            dense_rows._written,
            lambda dense, tokens: dense_rows._embedded(dense, tokens.spread),
        ):
            dense = torch.randn(7, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
            padded = to_padded(dense, tokens)
            real = padded[mask == 1]
            assert padded.shape == (3, 4, 5)
            assert torch.equal(real, dense)
            weights = torch.randn(7, 5, generator=torch.Generator().manual_seed(2))
            (real * weights).sum().backward()
            ends.append(dense.grad)
        assert torch.equal(*ends)  # type: ignore[arg-type]
        assert float(dense_rows._written(dense, tokens)[mask == 0].abs().max()) == 0
        assert torch.equal(padded.flatten(0, 1).index_select(0, tokens.gather), dense)
