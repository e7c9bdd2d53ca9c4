"""A loss that is a sum over items: examples for classification, trained tokens for language models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from finetuning.tasks.base import Task
from finetuning.types import Batch
from finetuning.windows.objectives.base import Passes

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Summed:
    """The task's loss summed over the window's items, divided by their number or the sum of their weights."""

    measures: tuple[str, ...] = ()

    def __init__(self, task: Task) -> None:
        self.task = task

    def counts(self, batches: Sequence[Batch]) -> tuple[float, ...]:
        """Return the number of items of these micro-batches, or the sum of their weights."""
        return (sum(self.task.scores.items(batch) for batch in batches if not batch.is_idle),)

    def accumulate(
        self, model: PreTrainedModel, batches: Sequence[Batch], counts: Sequence[float], passes: Passes
    ) -> torch.Tensor:
        """Add each micro-batch's share of the gradient (see base.Objective); return the sum of the loss."""
        total = torch.zeros((), device=model.device)
        for batch in batches:
            with passes.on_device(batch) as ready:
                with passes.phase("forward"):
                    loss_sum = self.task.scores.training_loss(model, ready) * (not batch.is_idle)
                with passes.phase("backward"):
                    passes.backward(loss_sum / counts[0])
            total = total + loss_sum.detach()
        return total.unsqueeze(0)
