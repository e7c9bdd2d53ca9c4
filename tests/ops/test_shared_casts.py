"""Linear layers of one input: one cast, and the values and gradients that autocast's own casts give."""

from __future__ import annotations

from typing import Any

import torch

from finetuning.ops.shared_casts import SharedCasts
from tests.support.counting import casts_of


class _Three(torch.nn.Module):
    """Three linear layers of one input, and one of their sum."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.third, self.last = (torch.nn.Linear(16, 16) for _ in range(4))

    def get_output_embeddings(self) -> None:
        return None

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.last(self.first(values) + self.second(values) * self.third(values))
        return found


def _outcome(model: Any, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    values = values.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(values)
        output.float().square().sum().backward()
    assert values.grad is not None
    return output, values.grad


def test_the_values_are_autocasts_and_the_gradient_is_close() -> None:
    model, values = _Three(), torch.randn(7, 16, generator=torch.Generator().manual_seed(1))
    expected, gradient = _outcome(model, values)
    with SharedCasts(model).in_use():  # type: ignore[arg-type]
        output, shared = _outcome(model, values)
    assert torch.equal(output, expected)
    torch.testing.assert_close(shared, gradient, rtol=0.02, atol=0.02 * float(gradient.abs().max()))


def test_an_input_is_cast_once() -> None:
    model, values = _Three(), torch.randn(7, 16)
    with torch.autocast("cpu", torch.bfloat16), SharedCasts(model).in_use():  # type: ignore[arg-type]
        assert casts_of(values.shape, lambda: model(values)) == 1
    with torch.autocast("cpu", torch.bfloat16):
        assert casts_of(values.shape, lambda: model(values)) == 3


def test_an_input_that_was_changed_in_place_is_cast_again() -> None:
    model, values = _Three(), torch.randn(7, 16)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad(), SharedCasts(model).in_use():  # type: ignore[arg-type]
        before = model.first(values)
        values.mul_(2)
        assert not torch.equal(model.first(values), before)


def test_float64_is_left_alone() -> None:
    model, values = _Three().double(), torch.randn(7, 16, dtype=torch.float64)
    expected = model(values)
    with SharedCasts(model).in_use():  # type: ignore[arg-type]
        assert torch.equal(model(values), expected)
