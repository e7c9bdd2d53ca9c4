"""Frozen types that the planning modules hand to each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from finetuning.tasks.base import Task
from finetuning.types import Batch


@dataclass(frozen=True)
class Step:
    """A micro-batch to count.

    Attributes:
        batch: Its tensors.
        is_window: Whether it is the only micro-batch of its window, and no gradients are in memory before it.
    """

    batch: Batch
    is_window: bool


@dataclass(frozen=True)
class Workload:
    """The parts of a run that need the most memory.

    Attributes:
        task: Computes the loss.
        steps: The largest micro-batches, largest first.
        evaluation: The largest batch without gradients.
        autocast: Returns the context that the run computes in.
        device: Where the run computes, and the batches are.
    """

    task: Task
    steps: Sequence[Step]
    evaluation: Batch
    autocast: Callable[[], AbstractContextManager[Any]]
    device: torch.device


@dataclass(frozen=True)
class Count:
    """Bytes alive at a peak, besides weights and optimizer states.

    Attributes:
        total: All of them, gradients included.
        logits: Those of tensors as wide as the vocabulary.
    """

    total: int
    logits: int


@dataclass(frozen=True)
class Estimate:
    """The memory of a run at its peak, in bytes.

    Attributes:
        parameters: Number of parameters.
        trained: Number of parameters that are trained.
        weights: Bytes of all weights.
        gradients: Bytes of the gradients.
        optimizer: Bytes of the optimizer's states.
        activations: Bytes of everything else that is alive, such as temporaries and autocast's copies of weights.
        logits: Bytes of tensors as wide as the vocabulary.
        counted: Whether activations and logits were counted. Otherwise they were computed by a formula.
        libraries: Bytes that libraries take in the first steps: on a CPU for code, on a GPU for workspaces.
        slack: Bytes that the allocator holds besides the tensors.
        copy: On a CPU, bytes of the copy that a checkpoint is written from while training goes on. It is optional:
            without room for it, the run waits for the disk.
    """

    parameters: int
    trained: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    counted: bool
    libraries: int = 0
    slack: int = 0
    copy: int = 0

    @property
    def overhead(self) -> int:
        """Bytes of libraries and the allocator."""
        return self.libraries + self.slack

    @property
    def total(self) -> int:
        """Bytes at the peak of a step."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits + self.overhead

    @property
    def saving(self) -> int:
        """Bytes while a checkpoint is written from a copy, between two steps."""
        return self.weights + self.optimizer + self.copy + self.libraries
