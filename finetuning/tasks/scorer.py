"""A part of a task: how it scores. The others are in parts.py and presenter.py."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from finetuning.config.schema import Settings
from finetuning.tasks.parts import RowColumns
from finetuning.types import Batch, Naive

if TYPE_CHECKING:
    import numpy as np
    import torch
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Scorer(ABC):
    """How a task scores: its loss, what evaluation keeps of each example, and metrics.

    Args:
        settings: Settings of the run.

    Attributes:
        best_metric: Metric by which the best model is chosen.
        greater_is_better: Whether a higher value of that metric is better.
        validation_texts: Rows for which a text is generated after an epoch. 0 if the task generates none.
        final_texts: The same for a run's last evaluation.
        reads: Settings of training that change its loss, of those that only some tasks read.
    """

    best_metric: str
    greater_is_better: ClassVar[bool]
    validation_texts: ClassVar[int] = 0
    final_texts: ClassVar[int] = 0
    reads: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def config_options(self, label_names: Sequence[str]) -> dict[str, Any]:
        """Return the entries of the model's config that the task sets, such as the label names."""
        if not label_names:
            return {}
        return {
            "num_labels": len(label_names),
            "id2label": dict(enumerate(label_names)),
            "label2id": {name: position for position, name in enumerate(label_names)},
        }

    def fit_model(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Give the model what the task needs, and read back what `calibrate` put into its config."""
        return

    @abstractmethod
    def forward(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """Run the model on a batch and return what loss and predictions need, such as logits."""

    @abstractmethod
    def loss_sum(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the loss summed over the batch's items. The window divides it by the number of its items.

        Args:
            outputs: Result of `forward`.
            batch: The batch that `forward` ran on.

        Returns:
            A scalar, float32 (float64 if the model computes in that).
        """

    def items(self, batch: Batch) -> float:
        """Return what the batch adds to the denominator of its window's loss."""
        return batch.items

    def training_loss(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """Return the loss for backward, summed as `items` counts. Override it for less memory, or for another loss."""
        return self.loss_sum(self.forward(model, batch), batch)

    @abstractmethod
    def predictions(self, outputs: torch.Tensor, batch: Batch) -> list[Any]:
        """Return what evaluation keeps of each example, in the batch's order."""

    def gather(
        self, predictions: Sequence[Any], examples: Dataset, rows: Dataset, label_names: Sequence[str]
    ) -> list[Any]:
        """Merge the predictions of a row's examples.

        Args:
            predictions: One of each example, in the order of `examples`.
            examples: Encoded examples of a split.
            rows: Rows of the split.
            label_names: Label names in the order of their ids.

        Returns:
            One prediction for each row.
        """
        return list(predictions)

    def calibrate(self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]) -> dict[str, Any]:
        """Choose values that are not trained, such as a threshold, on the validation split.

        Args:
            predictions: One of each row.
            rows: Columns of the split by role.
            label_names: Label names in the order of their ids.

        Returns:
            Entries for the model's config, which `fit_model` reads.
        """
        return {}

    def cross_calibrated(
        self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]
    ) -> Sequence[Any]:
        """Return the predictions on the split that `calibrate` chose on, each decided by values that it had no part in.

        Args:
            predictions: One of each row.
            rows: Columns of the split by role.
            label_names: Label names in the order of their ids.

        Returns:
            The predictions. The default leaves them to the values that all of them chose.
        """
        return predictions

    def baseline(self, train_labels: Mapping[str, int], count: int, label_names: Sequence[str]) -> Naive | None:
        """Return what is had without training, such as `count` predictions of the commonest label.

        Args:
            train_labels: Count of each label in train.
            count: Number of predictions.
            label_names: Label names in the order of their ids.

        Returns:
            It, or None for a task without.
        """
        return None

    def drawn_score(
        self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]
    ) -> Callable[[np.ndarray], float] | None:
        """Count once what each row contributes to the best metric, for a bootstrap that draws rows hundreds of times.

        Args:
            predictions: One of each row.
            rows: Columns of the split by role.
            label_names: Label names in the order of their ids.

        Returns:
            A function from the places of drawn rows, (rows,) integers with repeats, to their score; None for a metric
            that only `metrics` can compute.
        """
        return None

    @abstractmethod
    def metrics(
        self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str], loss: float
    ) -> dict[str, float]:
        """Compute the field's metrics over a whole split.

        Args:
            predictions: One of each row.
            rows: Columns of the split by role.
            label_names: Label names in the order of their ids.
            loss: Mean loss over the split's items.

        Returns:
            Values by name, `loss` and `best_metric` among them.
        """
