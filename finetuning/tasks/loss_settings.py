"""Settings of training that change a task's loss: class weights and label smoothing, and which tasks read them."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from exceptions import SettingsError
from finetuning.config.schema import Settings, TrainingSettings
from finetuning.config.value_types import bare_value
from finetuning.korean.particles import with_particle
from finetuning.tasks.scorer import Scorer
from finetuning.tasks.tensors import at_least_float32
from finetuning.types import IGNORED, Batch

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from finetuning.tasks.base import Task

_READ_BY_SOME = ("class_weights", "label_smoothing", "neftune_alpha")
_DIGITS = 6  # of a balanced weight


def check_read(task: Task) -> None:
    """Check that the task reads the settings of training that only some tasks read.

    Args:
        task: The task.

    Raises:
        SettingsError: One is set that it does not read.
    """
    from finetuning.tasks.registry import task_classes

    training, defaults = task.settings.training, TrainingSettings()
    for key in _READ_BY_SOME:
        value = getattr(training, key)
        if value == getattr(defaults, key) or key in task.scores.reads:
            continue
        readers = [name for name, cls in task_classes().items() if key in cls(task.settings).scores.reads]
        raise SettingsError(
            f"{task.name} 태스크는 training.{with_particle(key, '을/를')} 쓰지 않습니다.",
            where=f"training.{key}: {bare_value(value)}, model.task: {task.name}",
            remedy=f"training.{key} 설정을 지우세요. 쓰는 태스크: {', '.join(readers)}",
        )


def resolved_weights(settings: Settings, counts: Mapping[str, int], label_names: Sequence[str]) -> Settings:
    """Return the settings with a weight for each label in place of `balanced`.

    A balanced weight is scikit-learn's: the items over the number of labels and the label's own items.

    Args:
        settings: The settings in force.
        counts: Items of each label in train.
        label_names: All labels.

    Returns:
        The settings.

    Raises:
        SettingsError: A weight is of a label that train does not have.
    """
    weights, there = settings.training.class_weights, {name: counts[name] for name in label_names if counts.get(name)}
    if isinstance(weights, dict):
        for label in weights.keys() - set(label_names):
            letters = {unicodedata.normalize("NFD", name): name for name in label_names}  # a syllable is several
            near = difflib.get_close_matches(unicodedata.normalize("NFD", label), letters, n=1)
            raise SettingsError(
                f"학습 데이터에 없는 라벨이 training.class_weights에 있습니다: {label}",
                where=f"training.class_weights: {bare_value(weights)}",
                remedy=f"{f'혹시 {letters[near[0]]}입니까? ' if near else ''}있는 라벨: {', '.join(label_names[:20])}",
            )
    if weights != "balanced":
        return settings
    total = sum(there.values())
    balanced = {name: float(f"{total / (len(there) * count):.{_DIGITS}g}") for name, count in there.items()}
    training = settings.training.model_copy(update={"class_weights": balanced})
    return settings.model_copy(update={"training": training})


class LabelLossScorer(Scorer):
    """Cross-entropy over label names: weighted by label and smoothed in training, plain in evaluation.

    Args:
        settings: Settings of the run.

    Attributes:
        weights: Weight of each label in the order of their ids, float32; None where all count alike.
    """

    reads = frozenset({"class_weights", "label_smoothing"})

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.weights: torch.Tensor | None = None
        self._placed: torch.Tensor | None = None  # the weights, where the last logits were

    def fit_model(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Put the weights into the order of the model's labels; see `Scorer.fit_model`."""
        import torch

        super().fit_model(model, tokenizer)
        named: Any = self.settings.training.class_weights
        if isinstance(named, dict):
            names: Any = model.config.id2label or {}
            self.weights = torch.tensor([float(named.get(names[number], 1.0)) for number in sorted(names)])

    def items(self, batch: Batch) -> float:
        """Return the sum of the weights of the batch's labels; see `Scorer.items`."""
        if self.weights is None or batch.labels is None:
            return batch.items
        labels = batch.labels[batch.labels != IGNORED]
        return float(self.weights.to(labels.device, dtype=_double())[labels].sum())

    def training_loss(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """Return the weighted and smoothed cross-entropy summed over items; see `Scorer.training_loss`."""
        import torch

        smoothing = self.settings.training.label_smoothing
        if self.weights is None and smoothing == 0:
            return super().training_loss(model, batch)
        assert batch.labels is not None
        logits = at_least_float32(self.forward(model, batch)).flatten(0, -2)
        weights = None if self.weights is None else self._weights_beside(logits)
        return torch.nn.functional.cross_entropy(
            logits, batch.labels.flatten(), weights, ignore_index=IGNORED, reduction="sum", label_smoothing=smoothing
        )

    def _weights_beside(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the weights on the device of logits. They are copied once: a copy from the host waits for a GPU."""
        assert self.weights is not None
        placed = self._placed
        if placed is None or placed.device != logits.device or placed.dtype != logits.dtype:
            placed = self.weights.to(logits)
            self._placed = placed if type(placed) is type(self.weights) else None  # none that has no values
        return placed


def _double() -> torch.dtype:
    import torch

    return torch.float64
