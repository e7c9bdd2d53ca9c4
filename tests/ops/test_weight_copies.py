"""Copies of weights in autocast's dtype: the gradients are autocast's, to the bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from finetuning.ops.replaced import computing_by
from finetuning.ops.weight_copies import WeightCopies


class Net(torch.nn.Module):
    """Layers of odd sizes: one is used twice, one is frozen, and one has no bias."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.twice = torch.nn.Linear(5, 7), torch.nn.Linear(7, 7, bias=False)
        self.frozen, self.last = torch.nn.Linear(7, 7), torch.nn.Linear(7, 3)
        self.frozen.requires_grad_(False)

    def linear(self) -> list[torch.nn.Linear]:
        return [self.first, self.twice, self.frozen, self.last]

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        values = self.twice(torch.nn.functional.gelu(self.first(values)))
        values = checkpoint(self.twice, values, use_reentrant=False)
        found: torch.Tensor = self.last(torch.tanh(self.frozen(values))).float().square().sum()
        return found


def _gradients(net: Net, batches: list[torch.Tensor], add: Callable[[], None]) -> list[torch.Tensor]:
    net.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        for batch in batches:
            net(batch).backward()
            add()
    return [parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None]


def _with_copies(net: Net, batches: list[torch.Tensor]) -> list[torch.Tensor]:
    copies = WeightCopies(net.linear())

    def forward_of(layer: torch.nn.Linear) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda values: torch.nn.functional.linear(values, *copies.of(layer))

    computing = computing_by({layer: forward_of(layer) for layer in net.linear()})
    with torch.autocast("cpu", torch.bfloat16), copies.in_use(), computing:
        return _gradients(net, batches, copies.add)


@pytest.mark.parametrize("count", [1, 3])
def test_gradients_are_those_of_autocast_to_the_bit(count: int) -> None:
    net, batches = Net(), [torch.randn(4, 5) for _ in range(count)]
    expected = _gradients(net, batches, lambda: None)
    found = _with_copies(net, batches)
    assert len(expected) == 5  # all but those of the frozen layer
    assert all(map(torch.equal, found, expected))


class Regularised(Net):
    """One weight is used beside its layer, too."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return super().forward(values) + self.last.weight.square().sum()


def test_a_weight_that_is_used_beside_its_layer_has_both_gradients() -> None:
    net, batches = Regularised(), [torch.randn(4, 5) for _ in range(2)]
    for found, expected in zip(_with_copies(net, batches), _gradients(net, batches, lambda: None), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)  # which is added first may round


def test_a_window_computes_with_the_weights_as_they_are_then() -> None:
    net, batches = Net(), [torch.randn(4, 5)]
    copies = WeightCopies(net.linear())
    with torch.autocast("cpu", torch.bfloat16):
        with copies.in_use():
            before = copies.of(net.first)[0].clone()
        with torch.no_grad():
            net.first.weight += 1
        with copies.in_use():
            after = copies.of(net.first)[0].clone()
    assert copies.of(net.first)[0] is net.first.weight  # outside the block layers have their own
    assert torch.equal(after, (net.first.weight).bfloat16())
    assert not torch.equal(before, after)
    assert all(map(torch.equal, _with_copies(net, batches), _gradients(net, batches, lambda: None)))


def test_without_autocast_layers_compute_with_their_own_weights() -> None:
    net = Net()
    copies = WeightCopies(net.linear())
    with copies.in_use():
        assert all(copies.of(layer)[0] is layer.weight for layer in net.linear())


class _Casts(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += func is torch.ops.aten._to_copy.default
        return func(*args, **(kwargs or {}))


def test_no_weight_is_cast_alone() -> None:
    net, batches = Net(), [torch.randn(4, 5)]
    with _Casts() as plain:
        _gradients(net, batches, lambda: None)
    with _Casts() as copied:
        _with_copies(net, batches)
    trained = 5
    assert copied.count <= plain.count - 2 * trained  # there and back
