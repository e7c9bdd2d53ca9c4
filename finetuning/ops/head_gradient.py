"""The gradient of an output layer's weight, computed once the backward pass has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

_LARGE = 2**27  # bytes of a gradient from which on it is worth it; glibc maps such a block by itself


class Tile(NamedTuple):
    """Some pieces of a vocabulary, of which the gradient of the head's weight is computed.

    Attributes:
        first: The first piece.
        error: The gradients of the logits, (items, pieces).
        hidden: The items' hidden states, (items, hidden size), in the same dtype.
    """

    first: int
    error: torch.Tensor
    hidden: torch.Tensor


class LaterGradient:
    """Computes the gradient of a head's weight when the activations of the model's layers are no longer there.

    The vocabulary loss knows it in the forward pass already, where most memory is in use: 640 MiB of it for 262,144
    pieces and 640 numbers each. What it is computed from takes 91 MiB for 182 items. The gradients of several
    micro-batches are added in place, without a second tensor of that size.

    Args:
        head: The output layer, not sharded. Nothing may wait for its gradient in the backward pass.
        make_room: Returns free memory to the system; called before the gradient's tensor is made.
    """

    def __init__(self, head: torch.nn.Linear, make_room: Callable[[], None] = lambda: None) -> None:
        self._head, self._make_room = head, make_room
        self._kept: list[tuple[list[Tile], torch.Tensor]] = []

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Let the head's losses keep what is to be added inside the block."""
        self._head.later_gradient = self  # type: ignore[assignment]
        try:
            yield
        finally:
            del self._head.later_gradient
            self._kept.clear()

    def keep(self, tiles: list[Tile], scale: torch.Tensor) -> None:
        """Keep the tiles of a loss, whose gradient is multiplied by a scalar."""
        self._kept.append((tiles, scale))

    def add(self) -> None:
        """Add what the last backward pass left to the gradient. The tiles are dropped one by one."""
        weight, kept = self._head.weight, self._kept[::-1]
        self._kept.clear()
        while kept:
            tiles, scale = kept.pop()
            is_first = weight.grad is None
            if weight.grad is None:
                self._make_room()
                weight.grad = torch.empty_like(weight)
            while tiles:
                first, error, hidden = tiles.pop()
                part = weight.grad[first : first + error.shape[1]]
                product = gradient_product(error.t(), hidden)
                if is_first:  # nothing is to be read, or filled with zeros first
                    part.copy_(product).mul_(scale)
                else:
                    part.add_(product.to(part.dtype).mul_(scale))


def is_worth_computing_later(head: torch.nn.Linear) -> bool:
    """Return whether a head is trained and its gradient is large."""
    weight = head.weight
    return weight.requires_grad and weight.numel() * weight.element_size() >= _LARGE


def later_gradient_of(head: torch.nn.Linear) -> LaterGradient | None:
    """Return what computes the gradient of a head's weight later, where something does."""
    later: LaterGradient | None = getattr(head, "later_gradient", None)
    return later


def gradient_product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return left @ right; of float16 factors in float32.

    The loss scale acts on these gradients later, so it can keep them neither from overflowing nor from vanishing: a sum
    over some thousand tokens exceeds float16's 65,504.
    """
    if left.dtype != torch.float16:
        return left @ right
    if left.device.type == "cuda":
        return torch.mm(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()  # other devices have no kernel with another dtype for the result
