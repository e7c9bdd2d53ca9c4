"""The loss of a window of texts, each compared with all others, in micro-batches of any size (GradCache).

Gao et al. 2021: the window is embedded without gradients, its loss and the gradient of each vector are taken, and each
micro-batch is run again with the gradient of its vectors. The second pass draws the dropout of the first one again.
The last micro-batch runs once only: its activations are kept while the loss is taken. The window of all processes is
one pool; each takes the gradient of its own vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch

from finetuning.device.random_state import RandomState
from finetuning.tasks.base import Task
from finetuning.tasks.embedding.losses import pool_of, window_loss
from finetuning.tasks.embedding.scoring import EmbeddingScorer
from finetuning.types import Batch, Texts
from finetuning.windows.objectives.base import Passes

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Contrastive:
    """The task's loss over all texts of the window, divided by the number of its examples."""

    def __init__(self, task: Task) -> None:
        assert isinstance(task.scores, EmbeddingScorer)
        self.scores = task.scores
        self.measures = task.scores.loss.measures

    def counts(self, batches: Sequence[Batch]) -> tuple[float, ...]:
        """Return the number of examples of these micro-batches, as many as there are queries."""
        return (sum(batch.items for batch in batches if not batch.is_idle),)

    def accumulate(
        self, model: PreTrainedModel, batches: Sequence[Batch], counts: Sequence[float], passes: Passes
    ) -> torch.Tensor:
        """Add this process's share of the gradient (see base.Objective); return its share of the loss's sums."""
        states, vectors = list[RandomState](), list[torch.Tensor]()
        with passes.without_gradients():
            for batch in batches[:-1]:
                states.append(RandomState.now(model.device))
                with passes.on_device(batch) as ready, passes.phase("forward"):
                    vectors.append(self.scores.embed(model, ready))
        with ExitStack() as kept:  # the last micro-batch's own pass ends with its backward pass
            for batch in batches[-1:]:
                ready = kept.enter_context(passes.on_device(batch))
                with passes.phase("forward"):
                    vectors.append(self.scores.embed(model, ready))
            sums, gradients = self._loss(model, [one.detach() for one in vectors], batches, counts[0], passes)
            for gradient in gradients[-1:]:
                with passes.phase("backward"):
                    passes.backward((vectors[-1] * gradient).sum())
        drawn = RandomState.now(model.device)
        for batch, state, gradient in zip(batches[:-1], states, gradients[:-1], strict=True):
            state.restore()
            with passes.on_device(batch) as ready:
                with passes.phase("forward"):
                    again = self.scores.embed(model, ready)
                with passes.phase("backward"):
                    passes.backward((again * gradient).sum())
        drawn.restore()  # the next window draws masks of its own
        return sums

    def _loss(
        self, model: PreTrainedModel, vectors: Sequence[torch.Tensor], batches: Sequence[Batch], examples: float,
        passes: Passes,
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:  # fmt: skip
        """Compute the loss of the window of all processes.

        Args:
            model: The model, for its device.
            vectors: Vectors of each of this process's micro-batches, (sequences, width).
            batches: The micro-batches.
            examples: Number of the window's examples, over all processes.
            passes: Gathers the vectors of the processes.

        Returns:
            The sums of loss and measures over the number of processes, (1 + measures,); and the gradient of each
            micro-batch's vectors, in the shape of the vectors.
        """
        pairs = list(zip(vectors, batches, strict=True))
        real = [one for one, batch in pairs if not batch.is_idle]
        own = torch.cat(real) if real else torch.empty(0, device=model.device)
        texts = [batch.texts for batch in batches if batch.texts is not None and not batch.is_idle]
        everyone, rank = passes.gathered(own, texts)
        there = [part for part in everyone if len(part[0])]
        pool = pool_of(Texts.joined([texts for _, parts in there for texts in parts]))
        pool = pool.mapped(lambda tensor: tensor.to(model.device))
        # in the precision of the vectors: cosines in bfloat16 would be too coarse to be divided by a temperature
        with torch.enable_grad(), torch.autocast(model.device.type, enabled=False):
            pooled = torch.cat([part[0] for part in there]).to(model.device).requires_grad_()
            loss, measured = window_loss(pooled, pool, self.scores.settings.embedding)
            (gradient,) = torch.autograd.grad(loss / examples, pooled)
        start = sum(len(part[0]) for part in everyone[:rank])
        mine = iter(gradient[start:].split([len(one) for one in real] + [len(gradient) - start - len(own)]))
        parts = [torch.zeros_like(one) if batch.is_idle else next(mine) for one, batch in pairs]
        return torch.stack([loss.detach(), *measured]) / len(everyone), parts
