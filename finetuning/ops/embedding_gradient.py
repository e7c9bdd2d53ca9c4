"""Gradients of embeddings: added to the rows that were looked up, or, of a small table, computed by a product."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from finetuning.ops.replaced import computing_by

_SMALL = 1024  # rows of a table up to which a product is as fast as sorting
_AT_ONCE = 2**14  # rows looked up whose product is taken at once


class RowGradients:
    """A model's embeddings, whose gradients are added row by row once a backward pass has ended.

    For a vocabulary of 250,000 pieces torch fills and adds some hundred megabytes a micro-batch, in which some
    thousand rows are not zero. Only embeddings that are trained take part, whose rows are looked up and at most scaled.

    Args:
        model: The model, on the CPU and not sharded. Nothing may wait for its embeddings' gradients in the backward
            pass.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        layers = [module for module in model.modules() if isinstance(module, torch.nn.Embedding)]
        self._layers = [one for one in layers if one.weight.requires_grad and _is_look_up(one)]
        self._made: list[tuple[torch.nn.Embedding, torch.Tensor, torch.Tensor]] = []

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Let the embeddings keep what they are to add inside the block."""
        anchor = torch.zeros((), requires_grad=True)
        try:
            with computing_by({layer: self._forward_of(layer, anchor) for layer in self._layers}):
                yield
        finally:
            self._made.clear()

    def add(self) -> None:
        """Add what the last backward pass left to the gradients."""
        for layer, places, gradient in self._made:
            weight = layer.weight
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            if layer.padding_idx is not None:
                is_real = places != layer.padding_idx
                places, gradient = places[is_real], gradient[is_real]
            weight.grad.index_add_(0, places, gradient.to(weight.dtype))
        self._made.clear()

    def _forward_of(self, layer: torch.nn.Embedding, anchor: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        scale = getattr(layer, "embed_scale", None)

        def forward(input: torch.Tensor) -> torch.Tensor:
            looked_up: torch.Tensor = _LookedUp.apply(anchor, layer, input, self._made)
            return looked_up * scale if scale is not None else looked_up

        return forward


class _LookedUp(torch.autograd.Function):
    """Rows of an embedding; the backward pass keeps their gradients for `RowGradients.add`."""

    @staticmethod
    def forward(
        context: Any, anchor: torch.Tensor, layer: torch.nn.Embedding, ids: torch.Tensor, made: list[Any]
    ) -> torch.Tensor:
        """Look the rows up. The anchor has a gradient, so that the rows have one."""
        context.kept = layer, ids, made
        return torch.nn.functional.embedding(ids, layer.weight.detach())

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[None, None, None, None]:
        """Keep the rows' gradients."""
        layer, ids, made = context.kept
        made.append((layer, ids.flatten(), gradients[0].flatten(0, -2)))
        return None, None, None, None


class SmallTables:
    """A model's small embeddings, such as those of places and of a text's kind, whose gradients are products.

    Many places look up one row of them. torch's kernel for GPUs adds so many in an order that varies: on an H200 the
    gradient of BERT's kinds of text was the only one that differed from call to call, and with it a resumed run.

    Args:
        model: The model, not sharded.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        layers = [module for module in model.modules() if type(module) is torch.nn.Embedding]
        self._layers = [one for one in layers if one.num_embeddings <= _SMALL and _is_look_up(one)]

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Let the embeddings compute their gradients so inside the block."""
        forwards: dict[torch.nn.Module, Callable[..., Any]] = {
            layer: partial(_looked_up, layer) for layer in self._layers if layer.weight.requires_grad
        }
        with computing_by(forwards):
            yield


def _looked_up(layer: torch.nn.Embedding, input: torch.Tensor) -> torch.Tensor:
    rows: torch.Tensor = _FromTable.apply(layer.weight, input, layer.padding_idx)
    return rows


class _FromTable(torch.autograd.Function):
    """Rows of a small embedding; their gradients meet in a product with ones where a row was looked up."""

    @staticmethod
    def forward(context: Any, weight: torch.Tensor, ids: torch.Tensor, padding: int | None) -> torch.Tensor:
        context.ids, context.shape, context.padding = ids, weight.shape, padding
        return torch.nn.functional.embedding(ids, weight)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        gradient, numbers = gradients[0].flatten(0, -2), torch.arange(context.shape[0], device=gradients[0].device)
        total = gradient.new_zeros(context.shape)
        for ids, part in zip(context.ids.flatten().split(_AT_ONCE), gradient.split(_AT_ONCE), strict=True):
            total.addmm_((numbers[:, None] == ids).to(part.dtype), part)
        if context.padding is not None:
            total[context.padding] = 0
        return total, None, None


def _is_look_up(layer: torch.nn.Embedding) -> bool:
    """Return whether a layer looks rows up, or scales them by its `embed_scale`, as Gemma's and BART's do for words."""
    if layer.max_norm is not None or layer.scale_grad_by_freq or layer.sparse:
        return False
    if type(layer) is torch.nn.Embedding:
        return True
    scale = getattr(layer, "embed_scale", None)
    if scale is None:  # positions, say, that are counted in the layer's own way
        return False
    ids = torch.zeros(1, 1, dtype=torch.long)
    with torch.no_grad():
        return torch.equal(layer(ids), torch.nn.functional.embedding(ids, layer.weight) * scale)
