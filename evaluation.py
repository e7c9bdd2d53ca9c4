"""One pass over a split without gradients: outcomes of every example in their order, and metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from batching import Examples, batches_by_length
from memory_utils import MemoryManager, is_out_of_memory
from tasks.base import Batch, RandomKey, Task

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Without gradients activations are freed layer by layer, so a batch of the same memory is larger.
_BUDGET_FACTOR = 2


@dataclass(frozen=True)
class Evaluation:
    """A split's metrics, further lines for a report, and the task's outcome of each example in the split's order."""

    metrics: dict[str, float]
    details: list[str]
    outcomes: list[Any]


@dataclass(frozen=True)
class Evaluator:
    """What a pass needs; `check_stop` is called before every batch and may raise StopRequested."""

    task: Task
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    label_names: Sequence[str]
    max_length: int
    accelerator: Accelerator
    memory: MemoryManager
    check_stop: Callable[[], None]

    def evaluate(self, examples: Examples, seed: int) -> Evaluation:
        """Metrics over a split with labels; random choices (masks) are those of epoch 0, the same every time."""
        outcomes, loss_sum, items = self._run(examples, RandomKey(seed, 0))
        hidden = {"input_ids", "attention_mask", "token_type_ids"}
        columns = {name: examples.table[name][:] for name in examples.table.column_names if name not in hidden}
        metrics = self.task.metrics(outcomes, columns, loss_sum / max(items, 1))
        return Evaluation(metrics, self.task.details(outcomes, columns, self.label_names), outcomes)

    def predict(self, examples: Examples) -> list[Any]:
        """Outcomes of examples that have no labels."""
        return self._run(examples, None)[0]

    @torch.no_grad()
    def without_finite_loss(self, examples: Examples, indices: Sequence[int], key: RandomKey) -> list[int]:
        """Those of the positions whose loss, alone and with the model as it is, is NaN or Inf."""
        bad: list[int] = []
        for index in indices:
            batch = to_device(self.task.collate(examples.fetch([index]), self.tokenizer, key), self.accelerator.device)
            with self.accelerator.autocast():
                loss = self.task.loss_sum(self.task.forward(self.model, batch), batch)
            if not bool(torch.isfinite(loss)):
                bad.append(index)
        return bad

    def _run(self, examples: Examples, key: RandomKey | None) -> tuple[list[Any], float, int]:
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        found: list[tuple[int, Any]] = []
        loss_sum, items = 0.0, 0
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                pending = batches_by_length(examples.lengths, self._budget())[rank::processes]
                while pending:
                    self.check_stop()
                    indices = pending.pop(0)
                    try:
                        batch, outcomes, batch_loss = self._batch(examples, indices, key)
                    except (RuntimeError, MemoryError) as error:
                        if not is_out_of_memory(error):
                            raise
                        self.memory.shrink_budget(int(examples.lengths[indices].max()) * len(indices), len(indices))
                        rest = np.concatenate([indices, *pending])
                        pending = [rest[cut] for cut in batches_by_length(examples.lengths[rest], self._budget())]
                        continue
                    found.extend(zip(indices.tolist(), outcomes, strict=True))
                    loss_sum, items = loss_sum + batch_loss, items + batch.items
        finally:
            self.model.train(was_training)
        if processes > 1:
            from accelerate.utils import gather_object

            found = gather_object(found)
            shares = gather_object([(loss_sum, items)])
            loss_sum, items = sum(share[0] for share in shares), sum(share[1] for share in shares)
        return [outcome for _, outcome in sorted(found, key=lambda pair: pair[0])], loss_sum, items

    def _budget(self) -> int:
        return _BUDGET_FACTOR * self.memory.token_budget

    def _batch(self, examples: Examples, indices: np.ndarray, key: RandomKey | None) -> tuple[Batch, list[Any], float]:
        batch = self.task.collate(examples.fetch(indices.tolist()), self.tokenizer, key)
        batch = to_device(batch, self.accelerator.device)
        with self.accelerator.autocast():
            logits = self.task.forward(self.model, batch)
        loss = float(self.task.loss_sum(logits, batch)) if key is not None else 0.0
        return batch, self.task.outcomes(logits, batch), loss


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on a device."""
    inputs = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.inputs.items()}
    labels = batch.labels.to(device, non_blocking=True) if batch.labels is not None else None
    return Batch(inputs, labels, batch.items, batch.tokens)
