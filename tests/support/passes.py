"""Runs a model on micro-batches for an objective, without a training run around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from threading import Barrier
from typing import Any

import torch

from finetuning.ops.dense_attention import without_padding
from finetuning.types import Batch


class Passes:
    """Runs a model on the CPU."""

    def __init__(self, model: Any) -> None:
        self.model = model

    @contextmanager
    def on_device(self, batch: Batch) -> Iterator[Batch]:
        with without_padding(self.model, batch.dense):
            yield batch

    def phase(self, name: str) -> Any:
        return nullcontext()

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    @contextmanager
    def without_gradients(self) -> Iterator[None]:
        with torch.no_grad():
            yield
        torch.clear_autocast_cache()

    def summed(self, value: torch.Tensor) -> torch.Tensor:
        return value

    def gathered(self, tensor: torch.Tensor, facts: Any) -> tuple[list[Any], int]:
        return [(tensor, facts)], 0


class SharedPasses(Passes):
    """One of several processes, each a thread with a model of its own."""

    def __init__(self, model: Any, rank: int, values: list[Any], together: Barrier) -> None:
        super().__init__(model)
        self.rank, self.values, self.together = rank, values, together

    def gathered(self, tensor: torch.Tensor, facts: Any) -> tuple[list[Any], int]:
        self.values[self.rank] = tensor, facts
        self.together.wait(60)
        return self.values, self.rank
