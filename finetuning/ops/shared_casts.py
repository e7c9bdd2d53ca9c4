"""One cast of an input that several linear layers read: autocast casts it anew in each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from finetuning.ops.replaced import computing_by

if TYPE_CHECKING:
    from transformers import PreTrainedModel


Weights = Callable[[torch.nn.Linear], tuple[torch.Tensor, "torch.Tensor | None"]]


class SharedCasts:
    """A model's linear layers, which share casts of their inputs inside a block.

    Queries, keys and values read one tensor, and so do a gated layer's two products. With one cast its copy is kept
    once for the backward pass, and the gradients meet before they are cast back, in autocast's dtype.

    Args:
        model: The model. Its output layer, which others replace while they compute losses, is left alone.
        weights: Returns the weight and the bias that a layer computes with; by default its own.
    """

    def __init__(self, model: PreTrainedModel, weights: Weights | None = None) -> None:
        self._weights = weights or _own
        self._layers = linear_layers(model)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Let the layers share casts inside the block."""
        last = _LastCast()
        with computing_by({layer: _forward_of(layer, last, self._weights) for layer in self._layers}):
            yield


def linear_layers(model: PreTrainedModel) -> list[torch.nn.Linear]:
    """Return a model's linear layers but for its output layer."""
    linear = [module for module in model.modules() if type(module) is torch.nn.Linear]
    return [layer for layer in linear if layer is not model.get_output_embeddings()]


class _LastCast:
    """Casts tensors, and keeps the last one with its cast."""

    def __init__(self) -> None:
        self._input: torch.Tensor | None = None
        self._cast: torch.Tensor | None = None
        self._state: tuple[int, bool] | None = None

    def of(self, input: torch.Tensor) -> torch.Tensor:
        """Return a tensor in autocast's dtype; the same tensor for the same input."""
        kind = input.device.type
        if not torch.is_autocast_enabled(kind) or input.dtype != torch.float32:
            return input
        state = (input._version, torch.is_grad_enabled())
        if self._cast is None or self._input is not input or self._state != state:
            self._input, self._cast, self._state = input, input.to(torch.get_autocast_dtype(kind)), state
        return self._cast


def _own(layer: torch.nn.Linear) -> tuple[torch.Tensor, torch.Tensor | None]:
    return layer.weight, layer.bias


def _forward_of(layer: torch.nn.Linear, last: _LastCast, weights: Weights) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(input: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(last.of(input), *weights(layer))

    return forward
