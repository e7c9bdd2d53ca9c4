"""Weights of linear layers as a CPU's products read them, packed once for all tokens of a generated text.

A product of few rows takes as long as its weights take to be read, and oneDNN packs bfloat16 weights anew for each: it
reads and writes them once more. Products with packed weights are the same to the bit (AVX512-BF16).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from finetuning.ops.replaced import computing_by

_BYTES = torch.bfloat16.itemsize


@contextmanager
def packed_weights(model: torch.nn.Module, rows: int, room: int) -> Iterator[None]:
    """Compute linear layers with packed weights inside the block, where autocast has a CPU compute in bfloat16.

    The packed weights take the place of those that autocast would cast and keep. Weights must not change inside the
    block, and nothing is differentiated.

    Args:
        model: The model; layers that compute otherwise than `torch.nn.Linear` are left alone.
        rows: Rows of most products.
        room: Most bytes of packed weights. Layers that are beyond it compute as they did.
    """
    forwards: dict[torch.nn.Module, Callable[..., torch.Tensor]] = {}
    for layer in model.modules() if can_pack() else ():
        own = vars(layer).keys() & {"forward"}
        if type(layer) is not torch.nn.Linear or own or type(layer.weight) is not torch.nn.Parameter:
            continue
        size = _BYTES * layer.weight.numel()
        if size <= room:
            forwards[layer], room = _packed(layer, rows), room - size
    with computing_by(forwards):
        yield


def can_pack() -> bool:
    """Return whether a CPU computes in bfloat16 here, and has products that take packed weights."""
    onednn = torch.backends.mkldnn
    return (
        torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and onednn.is_available()
        and bool(onednn.enabled)
        and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def _packed(layer: torch.nn.Linear, rows: int) -> Callable[..., torch.Tensor]:
    weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach().to(torch.bfloat16), rows)
    bias = None if layer.bias is None else layer.bias.detach().to(torch.bfloat16)

    def forward(input: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = torch.ops.mkldnn._linear_pointwise(input.to(torch.bfloat16), weight, bias, "none", [], "")
        return made

    return forward
