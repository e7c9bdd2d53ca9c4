"""Products with packed weights against those without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from finetuning.ops.packed_weights import can_pack, packed_weights

PLENTY = 2**30


@contextmanager
def generating() -> Iterator[None]:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        yield


def has_packed_products() -> bool:
    with generating():
        return can_pack()


needs_bfloat16 = pytest.mark.skipif(not has_packed_products(), reason="no bfloat16 products of oneDNN on this CPU")


def model_of(dtype: torch.dtype) -> torch.nn.Module:
    torch.manual_seed(0)
    layers = torch.nn.Linear(48, 160), torch.nn.GELU(), torch.nn.Linear(160, 33, bias=False)
    return torch.nn.Sequential(*layers).to(dtype)


@needs_bfloat16
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 12])
def test_they_are_those_of_autocast(rows: int, dtype: torch.dtype) -> None:
    model = model_of(dtype)
    prompts, tokens = torch.randn(rows, 40, 48), torch.randn(rows, 1, 48)
    with generating():
        expected = model(prompts), model(tokens)
        with packed_weights(model, rows, PLENTY):
            made = model(prompts), model(tokens)
        after = model(tokens)
    for one, other in zip(made, expected, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=2**-7, atol=2**-7)
    assert torch.equal(after, expected[1])


@needs_bfloat16
def test_weights_are_those_at_the_beginning_of_each_block() -> None:
    model, tokens = model_of(torch.float32), torch.randn(2, 1, 48)
    for _ in range(2):
        with generating():
            with packed_weights(model, 2, PLENTY):
                made = model(tokens)
            torch.testing.assert_close(made, model(tokens), rtol=2**-7, atol=2**-7)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter)


@needs_bfloat16
def test_layers_beyond_the_room_compute_as_they_did() -> None:
    model = model_of(torch.float32)
    with generating(), packed_weights(model, 2, 2 * 48 * 160):
        assert ["forward" in vars(layer) for layer in model] == [True, False, False]
    assert not any("forward" in vars(layer) for layer in model)


def test_nothing_is_packed_where_a_cpu_computes_in_float32() -> None:
    model = model_of(torch.float32)
    with torch.no_grad(), packed_weights(model, 2, PLENTY):
        assert not any("forward" in vars(layer) for layer in model)
