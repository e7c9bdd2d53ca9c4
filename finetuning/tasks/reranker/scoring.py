"""Scoring of rerankers: the score of each pair, its loss, and metrics of rankings, labels and scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetuning.config.schema import Settings
from finetuning.tasks.parts import RowColumns
from finetuning.tasks.reranker.losses import LOSSES
from finetuning.tasks.reranker.rows import by_query, by_row
from finetuning.tasks.scorer import Scorer
from finetuning.tasks.tensors import at_least_float32
from finetuning.types import Batch, Naive

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_BEST = {"lists": "ndcg_at_10", "pairs": "average_precision", "scores": "spearman"}
_SIGMOID, _IDENTITY = "torch.nn.modules.activation.Sigmoid", "torch.nn.modules.linear.Identity"


class RerankScorer(Scorer):
    """The score of a pair by the single output of a model for sequence classification.

    Args:
        settings: Settings of the run. The shape of the data decides which metric picks the best model.

    Attributes:
        threshold: Probability from which on a pair counts as relevant: the one of highest F1 on the validation split.
    """

    greater_is_better = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.threshold = 0.5
        self.best_metric = _BEST[settings.reranker.format or "lists"]

    def shown(self, score: float) -> float:
        """Return a score as a person reads it: a probability, or under mse a number on the scale of the data."""
        return score if self.settings.reranker.loss == "mse" else float(_sigmoid(np.array(score)))

    def config_options(self, label_names: Sequence[str]) -> dict[str, Any]:
        """Return a single output."""
        return {"num_labels": 1}

    def fit_model(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Read the threshold, and tell sentence-transformers what makes a score of the output (`Scorer.fit_model`)."""
        config: Any = model.config
        self.threshold = getattr(config, "decision_threshold", self.threshold)
        config.sentence_transformers = {
            "activation_fn": _IDENTITY if self.settings.reranker.loss == "mse" else _SIGMOID
        }
        if hasattr(model, "score"):  # a causal model is read at its last token that is no padding
            config.get_text_config().pad_token_id = tokenizer.pad_token_id

    def forward(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """Return the score of each pair, before the sigmoid, (pairs,)."""
        logits: torch.Tensor = model(**batch.inputs).logits
        return at_least_float32(logits.squeeze(-1))

    def loss_sum(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the loss of the settings summed over its items; 0 for data that it cannot be computed of."""
        lists, loss = batch.lists, self.settings.reranker.loss
        assert lists is not None
        if loss is None:
            loss = "listwise" if len(lists.owners) > len(lists.sizes) else "bce"
        if batch.labels is None or (loss == "margin_mse" and lists.pairs is None):
            return outputs.sum() * 0
        return LOSSES[loss](outputs, batch.labels.to(outputs), lists)

    def predictions(self, outputs: torch.Tensor, batch: Batch) -> list[Any]:
        """Return the scores of each example's passages, before the sigmoid."""
        assert batch.lists is not None
        scores, ends = outputs.float().cpu().numpy(), np.cumsum(batch.lists.sizes)
        return [part.tolist() for part in np.split(scores, ends[:-1])]

    def calibrate(self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]) -> dict[str, Any]:
        """Return the probability from which on single pairs have the highest F1; see `Scorer.calibrate`."""
        from sklearn.metrics import precision_recall_curve

        if self.best_metric != "average_precision":
            return {}
        labels, scores = _pairs(predictions, rows)
        precision, recall, edges = precision_recall_curve(labels, _sigmoid(scores))
        f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
        return {"decision_threshold": float(edges[int(f1[:-1].argmax())])}

    def baseline(self, train_labels: Mapping[str, int], count: int, label_names: Sequence[str]) -> Naive | None:
        """Return scores drawn at random; see `Scorer.baseline`."""
        return Naive("문서에 점수를 무작위로 매기면", [()] * count)

    def drawn_score(
        self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]
    ) -> Callable[[np.ndarray], float] | None:
        """Return the mean nDCG@10 of drawn rows, where every row is a list that has one; see `Scorer.drawn_score`."""
        if "passages" not in rows or self.best_metric != "ndcg_at_10":
            return None
        gains = np.array([one.gain() for one in by_query(predictions, rows)])
        return (lambda places: float(gains[places].mean())) if len(gains) == len(predictions) else None

    def metrics(
        self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str], loss: float
    ) -> dict[str, float]:
        """Compute metrics of each query's own list, and of single pairs average precision and F1, or Spearman.

        A list counts where it has a passage that is relevant and one that is not.
        """
        lists, (labels, scores) = by_query(predictions, rows), _pairs(predictions, rows)
        are_marks, found = set(labels.tolist()) <= {0.0, 1.0}, {"loss": loss}
        if lists:
            found["ndcg_at_10"] = float(np.mean([one.gain() for one in lists]))
        if lists and are_marks:
            found["mrr_at_10"] = float(np.mean([one.reciprocal_rank() for one in lists]))
            found["top_accuracy"] = float(np.mean([one.is_right() for one in lists]))
        if "passages" not in rows and are_marks:
            found |= self._of_marks(labels, scores)
        if not are_marks or self.best_metric == "spearman":
            found["spearman"] = _spearman(labels, scores)
        return {**found, self.best_metric: found.get(self.best_metric, 0.0)}

    def _of_marks(self, labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
        from sklearn.metrics import average_precision_score, f1_score

        has_any, said = labels.any(), _sigmoid(scores) >= self.threshold
        return {
            "average_precision": float(average_precision_score(labels, scores)) if has_any else 0.0,
            "f1": float(f1_score(labels, said, zero_division=0)),
            "threshold": self.threshold,
        }


def _pairs(predictions: Sequence[Any], rows: RowColumns) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels and the scores of all pairs of a split."""
    found = list(by_row(predictions, rows))
    return np.concatenate([one.labels for one in found]), np.concatenate([one.scores for one in found])


def _sigmoid(scores: np.ndarray) -> np.ndarray:
    from scipy.special import expit

    found: np.ndarray = expit(scores)
    return found


def _spearman(labels: np.ndarray, scores: np.ndarray) -> float:
    from scipy.stats import spearmanr

    is_constant = len(set(labels.tolist())) < 2 or len(set(scores.tolist())) < 2  # a correlation is not defined then
    return 0.0 if is_constant else float(spearmanr(labels, scores)[0])
