"""Dropout on a CPU: how much it drops, that it can be drawn again, and that it is where a model's layers drop."""

from __future__ import annotations

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from finetuning.ops.attention_ways import Call, padded
from finetuning.ops.dense_attention import dense_tokens
from finetuning.ops.dropout import QuickDropout, dropped


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_values_are_zero_or_scaled(dtype: torch.dtype, probability: float) -> None:
    torch.manual_seed(0)
    values = torch.ones(301, 1001, dtype=dtype)
    found = dropped(values, probability)
    scale = torch.tensor(1 / (1 - probability), dtype=dtype)
    assert found.dtype == dtype and found.shape == values.shape
    assert abs(float((found == 0).double().mean()) - probability) < 5 * (probability * (1 - probability) / 3e5) ** 0.5
    torch.testing.assert_close(found[found != 0], scale.expand(int((found != 0).sum())), rtol=1e-4, atol=0)


def test_draws_differ_and_are_those_of_torchs_state() -> None:
    torch.manual_seed(5)
    first, second = (dropped(torch.ones(64, 64), 0.3) for _ in range(2))
    torch.manual_seed(5)
    assert not torch.equal(first, second)
    assert torch.equal(dropped(torch.ones(64, 64), 0.3), first)


def test_a_recomputed_pass_drops_the_same_values() -> None:
    gradients = []
    for compute in (lambda f, x: f(x), lambda f, x: checkpoint(f, x, use_reentrant=False)):
        torch.manual_seed(1)
        values = torch.linspace(1, 2, 512).requires_grad_()
        compute(lambda x: dropped(x.exp(), 0.5), values).sum().backward()
        gradients.append(values.grad)
    assert torch.equal(*gradients)  # type: ignore[arg-type]


def test_a_models_layers_drop_inside_the_block_alone() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.5), torch.nn.Dropout(0.0))
    values, quick = torch.randn(16, 8), QuickDropout(model)

    def drawn() -> torch.Tensor:
        torch.manual_seed(3)
        found: torch.Tensor = model(values)
        return found

    torch_own = drawn()
    torch.manual_seed(3)
    expected = dropped(model[0](values), 0.5)
    with quick.in_use():
        assert torch.equal(drawn(), expected)
        assert torch.equal(model.eval()(values), model[0](values))
    assert torch.equal(model.train() and drawn(), torch_own)


@pytest.mark.parametrize("lengths", [(3, 5, 1), (4, 4)], ids=["padded", "whole"])
def test_attention_drops_weights_of_real_tokens(lengths: tuple[int, ...]) -> None:
    """The way of a CPU with dropout is softmax, `dropped` and a product, by sequence, with and without padding."""
    longest, heads, width, share = max(lengths), 2, 4, 0.4
    tokens = dense_tokens((torch.arange(longest) < torch.tensor(lengths)[:, None]).long(), multiple=4)
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(tokens.length, heads, width, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    torch.manual_seed(7)
    found = padded(Call(torch.nn.Module(), query, key, value, tokens, dropout=share))
    torch.manual_seed(7)
    factors = dropped(torch.ones(len(lengths), heads, longest, longest, dtype=torch.float64), share)
    start = 0
    for row, length in enumerate(lengths):
        mine = slice(start, start + length)
        scores = torch.einsum("qhw,khw->hqk", query[mine], key[mine]) / width**0.5
        weights = scores.softmax(-1) * factors[row, :, :length, :length]
        expected = torch.einsum("hqk,khw->qhw", weights, value[mine])
        torch.testing.assert_close(found[mine], expected, rtol=0, atol=1e-12)
        start += length
