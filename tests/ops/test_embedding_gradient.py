"""Gradients of embeddings that are added by rows are those of autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from finetuning.ops import embedding_gradient
from finetuning.ops.embedding_gradient import RowGradients, SmallTables


class _Scaled(torch.nn.Embedding):
    """An embedding that scales its rows, as Gemma's does."""

    embed_scale = 3.0

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) * self.embed_scale


class _Positions(torch.nn.Embedding):
    """An embedding of places, which takes whole rows, as BART's does."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        _rows, length = input.shape
        return super().forward(torch.arange(length))


class _Tied(torch.nn.Module):
    """Two embeddings, one with padding, and a head that has the other's weight."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.kinds = torch.nn.Embedding(11, 4), _Scaled(3, 4, padding_idx=0)
        self.head = torch.nn.Linear(4, 11, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(torch.tanh(self.words(ids) + self.kinds(ids % 3)))
        return scores


def _accumulated(model: Any, batches: list[torch.Tensor], rows: RowGradients | None) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    for ids in batches:
        model(ids).square().sum().backward()
        if rows is not None:
            rows.add()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_they_are_those_of_autograd_over_micro_batches() -> None:
    model = _Tied().double()
    batches = [torch.tensor([[1, 2, 2], [3, 0, 10]]), torch.tensor([[2, 5]])]
    expected = _accumulated(model, batches, None)
    rows = RowGradients(model)
    with rows.in_use():
        found = _accumulated(model, batches, rows)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_a_pass_that_failed_leaves_nothing() -> None:
    model = _Tied().double()
    expected = _accumulated(model, [torch.tensor([[1, 2]])], None)
    rows = RowGradients(model)
    with rows.in_use():
        model(torch.tensor([[4, 5]])).sum().backward()  # memory ran out behind it, say
    with rows.in_use():
        found = _accumulated(model, [torch.tensor([[1, 2]])], rows)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_an_embedding_that_is_no_look_up_is_left_alone() -> None:
    layer = _Positions(3, 4)
    with RowGradients(layer).in_use():
        assert "forward" not in vars(layer)


def test_frozen_embeddings_are_left_alone() -> None:
    model = _Tied()
    model.words.weight.requires_grad_(False)
    with RowGradients(model).in_use():
        assert "forward" not in vars(model.words) and "forward" in vars(model.kinds)


def test_those_of_small_tables_are_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients of autograd, some rows at a time; a table that is not trained, and padding, have none."""
    monkeypatch.setattr(embedding_gradient, "_AT_ONCE", 4)
    torch.manual_seed(0)
    ids = torch.randint(0, 3, (5, 4))
    for layer in (torch.nn.Embedding(3, 6), torch.nn.Embedding(3, 6, padding_idx=0)):
        model = torch.nn.Sequential(layer.double(), torch.nn.Tanh())
        model(ids).square().sum().backward()
        assert layer.weight.grad is not None
        expected, layer.weight.grad = layer.weight.grad, None
        with SmallTables(model).in_use():
            assert torch.equal(model(ids), torch.tanh(layer.weight[ids]))
            model(ids).square().sum().backward()
        torch.testing.assert_close(layer.weight.grad, expected, rtol=0, atol=1e-12)
        layer.requires_grad_(False)
        with SmallTables(model).in_use():
            assert not model(ids).requires_grad
