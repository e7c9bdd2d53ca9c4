"""Evaluate a model on a split without gradients: a prediction for every row, in order, and metrics."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from finetuning.data.examples import Examples, batches_by_length
from finetuning.data.table import Cells, numbers
from finetuning.device.budget import TokenBudget
from finetuning.device.oom import MAY_BE_OUT_OF_MEMORY, is_out_of_memory
from finetuning.device.runtime import Runtime
from finetuning.device.sharding import free_gathered, is_sharded
from finetuning.inference.by_dataset import lines_by_dataset
from finetuning.korean.text_quality import GeneratedText
from finetuning.tasks.base import Task
from finetuning.tasks.generation.decoding import Decoding, decoding_of
from finetuning.tasks.generation.shared import Answer, GeneratingScorer
from finetuning.types import RandomKey

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_log = logging.getLogger(__name__)
# Without gradients, activations are freed layer by layer, so a larger batch fits into the same memory.
BUDGET_FACTOR = 2


@dataclass(frozen=True)
class Evaluation:
    """Result of evaluating a split.

    Attributes:
        metrics: Values by metric name.
        details: Lines for the log, such as a table of scores by label.
        predictions: The task's prediction for each row, in the split's order.
    """

    metrics: dict[str, float]
    details: list[str]
    predictions: list[Any]


@dataclass(frozen=True)
class Evaluator:
    """Runs a model over splits.

    Attributes:
        task: Collates examples, computes the loss and the predictions, and measures them.
        model: The model, on the runtime's device.
        tokenizer: The model's tokenizer.
        label_names: Label names in the order of their ids; empty for a task without labels.
        max_length: Most tokens of an example.
        runtime: Device, precision and processes.
        memory: Token budget of a batch, lowered when memory runs out.
        check_stop: Called before every batch; may raise StopRequested.
    """

    task: Task
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    label_names: Sequence[str]
    max_length: int
    runtime: Runtime
    memory: TokenBudget
    check_stop: Callable[[], None]

    def evaluate(self, examples: Examples, seed: int, generated_rows: int) -> Evaluation:
        """Compute metrics over a split with labels.

        Args:
            examples: The split.
            seed: Seed of random choices such as masks. They are those of epoch 0, so every evaluation has the same.
            generated_rows: Number of rows, from the first, to generate text for. Used only by tasks that generate.

        Returns:
            Metrics, lines for the log, and predictions.
        """
        predictions, loss = self._with_loss(examples, seed, generated_rows)
        return self.measure(predictions, examples, loss)

    def validate(self, examples: Examples, seed: int, generated_rows: int) -> Evaluation:
        """Calibrate the task on the validation split (for example, choose a threshold), then evaluate on it.

        A row is scored by values that other rows chose, where the task can do so.

        Args:
            examples: The validation split.
            seed: As for evaluate.
            generated_rows: As for evaluate.

        Returns:
            Metrics, lines for the log, and predictions. The calibrated values are stored in the model's config.
        """
        predictions, loss = self._with_loss(examples, seed, generated_rows)
        for name, value in self.task.scores.calibrate(predictions, columns_of(examples), self.label_names).items():
            setattr(self.model.config, name, value)
        self.task.scores.fit_model(self.model, self.tokenizer)
        return self.measure(self._cross_calibrated(predictions, examples), examples, loss)

    def evaluate_again(self, examples: Examples, seed: int, generated_rows: int) -> Evaluation:
        """Evaluate on the validation split that the model was chosen and calibrated on; see `validate`."""
        predictions, loss = self._with_loss(examples, seed, generated_rows)
        return self.measure(self._cross_calibrated(predictions, examples), examples, loss)

    def _cross_calibrated(self, predictions: Sequence[Any], examples: Examples) -> list[Any]:
        return list(self.task.scores.cross_calibrated(predictions, columns_of(examples), self.label_names))

    def decoding(self, *, is_measured: bool) -> Decoding:
        """Return how the model generates texts; see `decoding_of`."""
        return decoding_of(self.task.settings.generation, self.model, is_measured=is_measured)

    def tell_decoding(self, *, is_measured: bool) -> None:
        """Log how texts are generated; nothing for a task that generates none."""
        if isinstance(self.task.scores, GeneratingScorer):
            _log.info("%s", self.decoding(is_measured=is_measured).line())

    def predict(self, examples: Examples) -> list[Any]:
        """Return the prediction for each row of examples without labels."""
        if isinstance(self.task.scores, GeneratingScorer):
            decoding = self.decoding(is_measured=False)
            texts = self._generate(self.task.scores, examples, len(examples.rows), decoding)
            return [Answer(generated=text) for text in texts]
        first, places = examples.distinct_sequences()

        def work(indices: np.ndarray) -> list[Any]:
            return self._predictions(examples, first[indices], None)[0]

        predictions = examples.by_example(self.in_batches(examples.sequence_lengths[first], work), places)
        return self.task.scores.gather(predictions, examples.table, examples.rows, self.label_names)

    @torch.no_grad()
    def without_finite_loss(self, examples: Examples, indices: Sequence[int], key: RandomKey) -> list[int]:
        """Find the examples whose loss is NaN or Inf.

        Args:
            examples: The split.
            indices: Positions of the examples to check. Each is computed alone, in the model's present mode.
            key: Key of random choices such as masks.

        Returns:
            The positions of those examples.
        """
        bad: list[int] = []
        for index in indices:
            own = examples.fetch_sequences(examples.sequences_of(np.array([index])))
            batch = self.task.encodes.collate(own, self.tokenizer, key)
            batch = self.runtime.on_device(batch)
            with self.runtime.autocast():
                loss = self.task.scores.loss_sum(self.task.scores.forward(self.model, batch), batch)
            if not bool(torch.isfinite(loss)):
                bad.append(index)
        free_gathered(self.model)
        return bad

    def measure(self, predictions: list[Any], examples: Examples, loss: float) -> Evaluation:
        """Compute the metrics of predictions; loss: the mean loss of the split's items."""
        rows = columns_of(examples)
        metrics = self.task.scores.metrics(predictions, rows, self.label_names, loss)
        details = self.task.shows.details(predictions, rows, self.label_names)
        details += lines_by_dataset(self.task, predictions, examples, self.label_names)
        return Evaluation(metrics, details, predictions)

    def _with_loss(self, examples: Examples, seed: int, generated_rows: int) -> tuple[list[Any], float]:
        """Return the prediction for each row, and the mean loss over all items."""

        def work(indices: np.ndarray) -> list[tuple[Any, float, int]]:
            predictions, loss_sum, items = self._predictions(examples, indices, RandomKey(seed, 0))
            return [
                (one, 0.0 if number else loss_sum, 0 if number else items) for number, one in enumerate(predictions)
            ]

        first, places = examples.distinct_sequences()
        found = self.in_batches(examples.sequence_lengths[first], lambda indices: work(first[indices]))
        made = examples.by_example([prediction for prediction, _, _ in found], places)
        loss_sum, items = math.fsum(loss for _, loss, _ in found), sum(count for *_, count in found)
        predictions = self.task.scores.gather(made, examples.table, examples.rows, self.label_names)
        if isinstance(self.task.scores, GeneratingScorer) and generated_rows:
            decoding = self.decoding(is_measured=True)
            answers = self._generate(self.task.scores, examples, min(generated_rows, len(predictions)), decoding)
            for position, text in enumerate(answers):
                predictions[position] = dataclasses.replace(predictions[position], generated=text)
        return predictions, loss_sum / max(items, 1)

    def _generate(
        self, scorer: GeneratingScorer, examples: Examples, count: int, decoding: Decoding
    ) -> list[GeneratedText]:
        """Generate a text for each of the first `count` rows."""

        def work(indices: np.ndarray) -> list[GeneratedText]:
            rows = [examples.rows[int(index)] for index in indices]
            with self.runtime.generating():
                return scorer.generate(self.model, rows, self.tokenizer, self.max_length, decoding)

        lengths = np.zeros(len(examples.rows), dtype=np.int64)
        places = np.searchsorted(numbers(examples.rows, "row"), numbers(examples.table, "row"))
        np.maximum.at(lengths, places, examples.lengths)
        return self.in_batches(lengths[:count] + decoding.max_new_tokens, work)

    def in_batches(self, lengths: np.ndarray, work: Callable[[np.ndarray], list[Any]]) -> list[Any]:
        """Apply `work` to every position, in batches of similar length, divided among the processes.

        Positions are divided first and cut afterwards: a process that ran out of memory cuts its own share smaller.
        Where the model is sharded, processes with fewer batches work on one again and drop what it makes.

        Args:
            lengths: Tokens of each position.
            work: Returns one result for each of the positions of a batch.

        Returns:
            The results of all processes, in the order of the positions.
        """
        rank, processes, shares = self.runtime.process, self.runtime.processes, is_sharded(self.model)
        found: list[tuple[int, Any]] = []
        was_training = self.model.training
        self.model.eval()
        try:
            # what is gathered of a sharded model in inference mode could not be trained afterwards
            with torch.no_grad() if shares else torch.inference_mode():
                mine = np.argsort(-lengths.astype(np.int64), kind="stable")[rank::processes]
                pending = [mine[cut] for cut in batches_by_length(lengths[mine], self._budget())]
                idle = int(self.runtime.maximum(len(pending))) - len(pending) if shares else 0
                while pending:
                    self.check_stop()
                    indices = pending.pop(0)
                    if (made := unless_out_of_memory(work, indices)) is not None:
                        found.extend(zip(indices.tolist(), made, strict=True))
                        continue
                    if shares:  # the others wait for this process inside a pass
                        raise self.memory.ran_out("평가하는 도중에 메모리가 부족해졌습니다.")
                    self.memory.shrink(int(lengths[indices].max()) * len(indices), len(indices))
                    rest = np.concatenate([indices, *pending])
                    pending = [rest[cut] for cut in batches_by_length(lengths[rest], self._budget())]
                for _ in range(idle):
                    work(np.argsort(lengths)[:1])
        finally:
            self.model.train(was_training)
            free_gathered(self.model)
        return [made for _, made in sorted(self.runtime.gathered(found), key=lambda pair: pair[0])]

    def _budget(self) -> int:
        return BUDGET_FACTOR * self.memory.token_budget

    def _predictions(
        self, examples: Examples, indices: np.ndarray, key: RandomKey | None
    ) -> tuple[list[Any], float, int]:
        """Return (predictions, loss sum, items) of one batch. No key means no labels; the loss is 0 then."""
        batch = self.task.encodes.collate(examples.fetch_sequences(indices), self.tokenizer, key)
        batch = self.runtime.on_device(batch)
        with self.runtime.autocast():
            logits = self.task.scores.forward(self.model, batch)
        loss = float(self.task.scores.loss_sum(logits, batch)) if key is not None else 0.0
        return self.task.scores.predictions(logits, batch), loss, batch.items


def unless_out_of_memory(work: Callable[[np.ndarray], list[Any]], indices: np.ndarray) -> list[Any] | None:
    """Return what `work` makes of these positions, or None where memory ran out.

    Memory can only be given back afterwards: until then the error holds the frames, and these the tensors.
    """
    try:
        return work(indices)
    except MAY_BE_OUT_OF_MEMORY as error:
        if not is_out_of_memory(error):
            raise
        return None


def columns_of(examples: Examples) -> dict[str, Sequence[Any]]:
    """Return the rows' columns by name. A column is read only when a metric uses it."""
    return {name: Cells(examples.rows, name) for name in examples.rows.column_names}
