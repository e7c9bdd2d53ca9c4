"""Copies of linear layers' weights in autocast's dtype, made by few kernels; a few more add all their gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

# Trained numbers up to which the copies are kept. What they save is launches, which larger models do not wait for, and
# all gradients in autocast's dtype live until the backward pass has ended: 512 MiB at most.
_MOST = 2**28
_AT_ONCE = 2**25  # numbers that are added at once, with a float32 temporary of each
_ALIGNED = 128  # numbers: 256 bytes in 16 bits, as the allocator's own tensors begin


class WeightCopies:
    """The trained float32 weights of linear layers, as leaves of the graph in autocast's dtype.

    Autocast itself casts weights one by one, and in the backward pass of each micro-batch their gradients, which are
    added one by one as well: some 600 of the 1,260 kernels that a step of BERT-base launched on an H200, which was busy
    for a tenth of the step. The numbers are the same to the bit: a gradient is cast to float32 and then added.

    Args:
        layers: The linear layers, whole and on one device. Nothing may wait for their gradients in the backward pass.
    """

    def __init__(self, layers: list[torch.nn.Linear]) -> None:
        every = [parameter for layer in layers for parameter in (layer.weight, layer.bias) if parameter is not None]
        trained = list(dict.fromkeys(one for one in every if one.requires_grad and one.dtype == torch.float32))
        is_small = sum(parameter.numel() for parameter in trained) <= _MOST
        self._trained: list[torch.Tensor] = list(trained) if is_small else []
        self._copies: dict[torch.Tensor, torch.Tensor] = {}

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Copy the weights as they are now, and keep the copies inside the block, where autocast is on."""
        try:
            if self._trained and torch.is_autocast_enabled(self._trained[0].device.type):
                self._copies = self._made()
            yield
        finally:
            self._copies = {}

    def of(self, layer: torch.nn.Linear) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return a layer's weight and bias, or their copies."""
        bias = layer.bias
        return self._copies.get(layer.weight, layer.weight), None if bias is None else self._copies.get(bias, bias)

    def add(self) -> None:
        """Add what the last backward pass left in the copies to the weights' gradients."""
        part, numbers = list[torch.Tensor](), 0
        for weight, copy in self._copies.items():
            if copy.grad is None:
                continue
            part, numbers = [*part, weight], numbers + weight.numel()
            if numbers >= _AT_ONCE:
                self._add(part)
                part, numbers = [], 0
        self._add(part)

    def _add(self, weights: list[torch.Tensor]) -> None:
        """Add the gradients of these weights' copies, and drop them."""
        if not weights:
            return
        left = [self._copies[weight] for weight in weights]
        gradients = _like(weights, torch.float32)
        torch._foreach_copy_(gradients, [copy.grad for copy in left if copy.grad is not None])
        sums, added = list[torch.Tensor](), list[torch.Tensor]()
        for weight, copy, gradient in zip(weights, left, gradients, strict=True):
            copy.grad = None
            if weight.grad is None:
                weight.grad = gradient
            else:
                sums.append(weight.grad)
                added.append(gradient)
        if sums:
            torch._foreach_add_(sums, added)

    def _made(self) -> dict[torch.Tensor, torch.Tensor]:
        copies = _like(self._trained, torch.get_autocast_dtype(self._trained[0].device.type))
        with torch.no_grad():
            torch._foreach_copy_(copies, self._trained)
        return dict(zip(self._trained, (copy.requires_grad_() for copy in copies), strict=True))


def _like(tensors: Sequence[torch.Tensor], dtype: torch.dtype) -> list[torch.Tensor]:
    """Return tensors of these shapes without values, in one allocation, where each begins as kernels like it."""
    sizes = [-(-tensor.numel() // _ALIGNED) * _ALIGNED for tensor in tensors]
    flat = tensors[0].new_empty(sum(sizes), dtype=dtype)
    parts = zip(flat.split(sizes), tensors, strict=True)
    return [part[: tensor.numel()].view(tensor.shape) for part, tensor in parts]
