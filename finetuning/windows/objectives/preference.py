"""The loss of a window of preferences: a sum over pairs of answers, or over answers beside the window's own point.

The window's counts divide it (pairs, answers to other questions, trained tokens), so the cut does not change it. Under
kto the point that answers are compared with is a mean over the window: it is found in a pass without gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from finetuning.tasks.base import Task
from finetuning.tasks.preference.scoring import PreferenceScorer
from finetuning.types import Batch
from finetuning.windows.objectives.base import Passes

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Preference:
    """The task's loss of each example over their number, and the cross-entropy of good answers over its tokens."""

    def __init__(self, task: Task) -> None:
        assert isinstance(task.scores, PreferenceScorer)
        self.scores = task.scores
        is_of_pairs = self.scores.loss.is_of_pairs
        self.measures: tuple[str, ...] = ("reward_accuracy", *(("reward_margin",) if is_of_pairs else ()))

    def counts(self, batches: Sequence[Batch]) -> tuple[float, ...]:
        """Return the examples of these micro-batches, and the tokens of good answers that are trained as in SFT."""
        real = [batch for batch in batches if not batch.is_idle]
        return sum(batch.items for batch in real), sum(map(self.scores.sft_tokens, real))

    def accumulate(
        self, model: PreTrainedModel, batches: Sequence[Batch], counts: Sequence[float], passes: Passes
    ) -> torch.Tensor:
        """Add each micro-batch's share of the gradient (see base.Objective); return the sums of loss and rewards."""
        examples, sft_tokens = counts
        point = self._reference_point(model, batches, examples, passes)
        total = torch.zeros(1 + len(self.measures), device=model.device)
        for batch in batches:
            with passes.on_device(batch) as ready:
                with passes.phase("forward"):
                    losses = self.scores.token_losses(model, ready)
                    examples_losses, rewards = self.scores.example_losses(losses, ready, point)
                    loss = examples_losses.sum()
                    if sft_tokens:
                        loss = loss + self.scores.sft_loss(losses, ready) * (examples / sft_tokens)
                    found = torch.stack([loss, *rewards]) * (not batch.is_idle)
                with passes.phase("backward"):
                    passes.backward(found[0] / examples)
            total = total + found.detach()
        return total

    def _reference_point(
        self, model: PreTrainedModel, batches: Sequence[Batch], examples: float, passes: Passes
    ) -> torch.Tensor | None:
        """Return the window's mean over answers to other questions of how much likelier they became, at least 0."""
        if self.scores.loss.is_of_pairs:
            return None
        moved, was_training = torch.zeros((), device=model.device), model.training
        model.eval()  # dropout would make the point depend on the cut
        try:
            for batch in batches:
                assert batch.others is not None
                with passes.without_gradients(), passes.on_device(batch.others) as ready, passes.phase("forward"):
                    found = self.scores.moved(self.scores.token_losses(model, ready), ready)
                    moved = moved + found * (not batch.is_idle)
        finally:
            model.train(was_training)
        return (passes.summed(moved) / examples).clamp(min=0)
