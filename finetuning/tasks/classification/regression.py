"""Regression on a text, or on a pair of texts: a number such as how alike two sentences are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from exceptions import BadRow, DataError
from finetuning.cells import as_text
from finetuning.tasks.base import Batch, Task, at_least_float32, encode_text
from finetuning.tasks.classification.single import TextClassification

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

# KLUE-STS counts a pair of sentences as alike from a score of 3 (of 0 to 5) on, in the labels and in the predictions.
_ALIKE, _MOST_ALIKE = 3.0, 5.0


class TextRegression(TextClassification):
    """Mean squared error of one output; the best model is the one of highest Pearson correlation."""

    name = "text-regression"
    aliases = ("regression", "sentence-similarity", "텍스트 회귀", "문장 유사도", "회귀")
    best_metric = "pearson"
    has_labels = False

    def for_data(self, roles: Sequence[str], train_labels: Mapping[str, int]) -> Task:
        return self.for_roles(roles)

    def prepare(self, row: dict[str, Any]) -> dict[str, Any]:
        if "label" in row and not _is_score(row["label"]):
            raise BadRow("숫자가 아닌 라벨")
        if "label" in row:
            row["label"] = as_text(float(row["label"]))  # 4.750 in a text file is 4.75 in a spreadsheet
        return row

    def label_names(self, train_labels: Mapping[str, int]) -> tuple[str, ...]:
        if len(train_labels) < 2:
            raise DataError(
                f"학습 데이터의 라벨이 한 가지뿐입니다: {next(iter(train_labels), '없음')}",
                where=f"라벨 열 '{self.settings.data.label_column}'",
                remedy="서로 다른 점수가 있는 데이터인지 확인하세요.",
            )
        if self.settings.model.num_labels not in (None, 1):
            raise DataError(
                f"회귀는 점수 하나를 맞히는데 model.num_labels는 {self.settings.model.num_labels}입니다.",
                where="model.num_labels",
                remedy="model.num_labels를 지우세요. 라벨로 분류하려면 model.task를 text-classification으로 쓰세요.",
            )
        return ()

    def config_options(self, label_names: Sequence[str]) -> dict[str, Any]:
        return {"num_labels": 1, "problem_type": "regression"}

    def encode(
        self,
        rows: Mapping[str, Sequence[Any]],
        tokenizer: PreTrainedTokenizerBase,
        label_names: Sequence[str],
        max_length: int,
    ) -> dict[str, list[Any]]:
        columns = encode_text(tokenizer, rows["text"], rows.get("text_pair"), max_length)
        if "label" in rows:
            columns["label"] = [float(label) for label in rows["label"]]
        return columns

    def loss_sum(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        import torch

        assert batch.labels is not None
        scores = at_least_float32(logits.squeeze(-1))
        return torch.nn.functional.mse_loss(scores, batch.labels.to(scores), reduction="sum")

    def outcomes(self, logits: torch.Tensor, batch: Batch) -> list[Any]:
        """Each example's score."""
        scores: list[Any] = logits.squeeze(-1).float().cpu().tolist()
        return scores

    def metrics(
        self, outcomes: Sequence[Any], rows: Mapping[str, Sequence[Any]], label_names: Sequence[str], loss: float
    ) -> dict[str, float]:
        """Pearson, Spearman and, of labels from 0 to 5 on both sides of 3, KLUE-STS's F1 (alike from 3 on)."""
        from scipy.stats import pearsonr, spearmanr
        from sklearn.metrics import f1_score

        truth, scores = np.array([float(label) for label in rows["label"]]), np.array(outcomes)
        constant = len(set(scores.tolist())) < 2 or len(set(truth.tolist())) < 2  # then a correlation is not defined
        found = {
            "loss": loss,
            "pearson": 0.0 if constant else float(pearsonr(truth, scores)[0]),
            "spearman": 0.0 if constant else float(spearmanr(truth, scores)[0]),
        }
        if 0 <= truth.min() < _ALIKE <= truth.max() <= _MOST_ALIKE:
            found["f1_at_3"] = float(f1_score(truth >= _ALIKE, scores >= _ALIKE, zero_division=0))
        return found

    def readable(
        self, outcome: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Any]:
        return {"score": outcome}

    def details(
        self, outcomes: Sequence[Any], rows: Mapping[str, Sequence[Any]], label_names: Sequence[str]
    ) -> list[str]:
        return []


def _is_score(cell: Any) -> bool:
    try:
        return not isinstance(cell, bool) and math.isfinite(float(cell))
    except (TypeError, ValueError, OverflowError):
        return False
