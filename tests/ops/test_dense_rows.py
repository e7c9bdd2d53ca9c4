"""What padded rows of one head each are, against padded rows whose heads are brought into another order."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from finetuning.ops.dense_attention import causal_tokens, dense_tokens
from finetuning.ops.dense_rows import by_head, can_be_by_head, to_dense, to_padded
from finetuning.types import DenseTokens

HEADS, WIDTH = 3, 4


def tokens_of(lengths: Sequence[int]) -> DenseTokens:
    return dense_tokens((torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long())


@pytest.mark.parametrize("lengths", [(3, 1, 5), (1, 2), (7, 7, 6, 1)])
def test_rows_by_head_are_padded_rows_with_heads_before_tokens(lengths: tuple[int, ...]) -> None:
    tokens, shape = tokens_of(lengths), (len(lengths), max(lengths))
    assert can_be_by_head(tokens)
    dense = torch.randn(sum(lengths), HEADS, WIDTH, requires_grad=True)
    expected = to_padded(dense.flatten(1), tokens).view(*shape, HEADS, WIDTH).transpose(1, 2)
    found = to_padded(dense.flatten(0, 1), by_head(tokens, HEADS)).view(expected.shape)
    upstream = torch.randn_like(expected)
    assert torch.equal(found, expected)
    gradients = [torch.autograd.grad(rows, dense, upstream)[0] for rows in (found, expected)]
    assert torch.equal(*gradients)


@pytest.mark.parametrize("lengths", [(3, 1, 5), (1, 2), (7, 7, 6, 1)])
def test_real_tokens_of_rows_by_head_are_those_of_padded_rows(lengths: tuple[int, ...]) -> None:
    tokens = tokens_of(lengths)
    rows = torch.randn(len(lengths), HEADS, max(lengths), WIDTH, requires_grad=True)
    expected = to_dense(rows.transpose(1, 2).flatten(2), tokens).view(-1, HEADS, WIDTH)
    found = to_dense(rows.flatten(0, 1), by_head(tokens, HEADS)).view(expected.shape)
    upstream = torch.randn_like(expected)
    assert torch.equal(found, expected)
    gradients = [torch.autograd.grad(dense, rows, upstream)[0] for dense in (found, expected)]
    assert torch.equal(*gradients)


def test_rows_without_padding_have_no_such_maps() -> None:
    """They are the dense row in another shape already."""
    assert not can_be_by_head(tokens_of((4, 4)))
    assert can_be_by_head(causal_tokens((4, 3)))
