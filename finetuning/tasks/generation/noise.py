"""NEFTune (Jain et al. 2023): uniform noise on the embeddings in training, drawn by seed, epoch and row.

The noise of an example of n tokens and d dimensions lies within alpha / sqrt(n · d). It is a function of the run and of
the example alone, so that it does not depend on how a window is cut, nor on where a run was stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from finetuning.types import Batch, Noise, RandomKey

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_PURPOSE = 5  # keeps these seeds apart from those of other draws of a row


def noise_of(rows: Sequence[Sequence[Mapping[str, Any]]], key: RandomKey, alpha: float) -> tuple[Noise, ...]:
    """Return the noise of each example of a batch.

    Args:
        rows: The examples of each row, one behind the other.
        key: Seed and epoch.
        alpha: `training.neftune_alpha`.

    Returns:
        The noise, not drawn yet.
    """
    import numpy as np

    found: list[Noise] = []
    for number, row in enumerate(rows):
        start = 0
        for example in row:
            length = len(example["input_ids"])
            sequence = np.random.SeedSequence([key.seed, key.epoch, int(example["row"]), length, _PURPOSE])
            seed = int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))
            found.append(Noise(number, start, length, seed, alpha))
            start += length
    return tuple(found)


@contextmanager
def on_embeddings(model: PreTrainedModel, batch: Batch) -> Iterator[None]:
    """Add the batch's noise to what the model's embedding returns inside the block."""

    def add(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        import torch

        noisy = torch.zeros_like(output)
        generator = torch.Generator(output.device)
        for noise in batch.noise:
            generator.manual_seed(noise.seed)
            shape = (noise.length, output.shape[-1])
            drawn = torch.rand(shape, generator=generator, device=output.device) * 2 - 1
            size = noise.alpha / (shape[0] * shape[1]) ** 0.5
            noisy[noise.row, noise.start : noise.start + noise.length] = (drawn * size).to(output.dtype)
        return output + noisy

    handle = model.get_input_embeddings().register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()
