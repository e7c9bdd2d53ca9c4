"""Dropout on a CPU from cheap random bits: drawing a Bernoulli number an element costs more than what it drops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from finetuning.ops.replaced import computing_by

_BITS = 16  # of an element's random number; a probability is rounded to 1/65,536, and the scale to what it then is
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes


def dropped(values: torch.Tensor, probability: float) -> torch.Tensor:
    """Zero values at random and scale the others, so that the expectation stays.

    One number of torch's generator seeds the stream of random bits. So a pass that is run again from the same state of
    the generator, as gradient checkpointing does, drops the same values.

    Args:
        values: Any shape and floating dtype, on the CPU.
        probability: Of being zeroed, from 0 to less than 1.

    Returns:
        A tensor like `values`.
    """
    if probability == 0.0:
        return values
    return values * _factors(values, probability)


def _factors(values: torch.Tensor, probability: float) -> torch.Tensor:
    """Return 0 or the scale for each value, in their dtype."""
    dropped = round(probability * 2**_BITS)
    seed, count = int(torch.randint(2**63 - 1, ()).item()), values.numel()
    raw = np.random.SFC64(seed).random_raw(-(-count * _BITS // 64))
    is_kept = raw.view(np.int16)[:count] >= dropped - 2 ** (_BITS - 1)
    # in integers that have the scale's bits: numpy has no bfloat16, and is faster here than torch
    scale = torch.tensor(2**_BITS / (2**_BITS - dropped), dtype=values.dtype)
    bits = scale.view(_INTEGERS[scale.itemsize]).numpy()
    return torch.from_numpy(is_kept * bits).view(values.dtype).view(values.shape)


class QuickDropout:
    """A model's dropout layers, which draw `dropped` inside a block.

    Args:
        model: The model, on the CPU.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        plain = [module for module in model.modules() if type(module) is torch.nn.Dropout]
        self._layers = [layer for layer in plain if 0 < layer.p < 1 and not layer.inplace]

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Let the layers that are in training drop by `dropped` inside the block."""
        with computing_by({layer: _forward_of(layer) for layer in self._layers}):
            yield


def _forward_of(layer: torch.nn.Dropout) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(input: torch.Tensor) -> torch.Tensor:
        return dropped(input, layer.p) if layer.training else input

    return forward
