"""Classification of a text, or of a pair of texts, into any number of labels at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from exceptions import BadRow, DataError
from finetuning.cells import as_label
from finetuning.config.schema import Settings
from finetuning.tasks.base import Batch, Task, at_least_float32, encode_text
from finetuning.tasks.classification.single import TextClassification

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_THRESHOLDS = (np.arange(1, 20) / 20).tolist()  # 0.05 to 0.95


class MultiLabelClassification(TextClassification):
    """Binary cross-entropy for each label; the best model is the one of highest micro-F1.

    A cell has its labels as a JSON list, or divided by `data.label_separator`; an empty list is a text with none.
    A label is predicted from a threshold on, the one of highest micro-F1 on the validation split.
    """

    name = "multi-label-classification"
    aliases = ("multilabel-classification", "다중 라벨 분류", "멀티라벨 분류")
    best_metric = "micro_f1"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.threshold = 0.5

    def for_data(self, roles: Sequence[str], train_labels: Mapping[str, int]) -> Task:
        return self.for_roles(roles)

    def prepare(self, row: dict[str, Any]) -> dict[str, Any]:
        if "label" in row:
            row["label"] = self._split(row["label"])
        return row

    def _split(self, cell: Any) -> list[str]:
        if isinstance(cell, str) and cell.lstrip().startswith("["):
            try:
                cell = json.loads(cell)
            except ValueError:
                raise BadRow("JSON 목록이 아닌 라벨") from None
        if isinstance(cell, str):
            cell = cell.split(self.settings.data.label_separator)
        if not isinstance(cell, list):
            cell = [cell]
        if any(isinstance(label, list | dict) for label in cell):
            raise BadRow("문자열의 목록이 아닌 라벨")
        return sorted({as_label(label) for label in cell} - {""})

    def labels_in(self, cell: str) -> Sequence[str]:
        labels: list[str] = json.loads(cell)
        return labels

    def label_names(self, train_labels: Mapping[str, int]) -> tuple[str, ...]:
        separator = self.settings.data.label_separator
        if len(train_labels) < 2:
            raise DataError(
                f"학습 데이터의 라벨이 두 가지가 안 됩니다: {next(iter(train_labels), '없음')}",
                where=f"라벨 열 '{self.settings.data.label_column}'",
                remedy=f"라벨 칸이 JSON 목록이거나 data.label_separator(지금 '{separator}')로 나뉘었는지 보세요. "
                "라벨 하나가 있고 없음을 가리는 것이면 text-classification을 쓰세요.",
            )
        return self.in_order(train_labels)

    def config_options(self, label_names: Sequence[str]) -> dict[str, Any]:
        return {**super().config_options(label_names), "problem_type": "multi_label_classification"}

    def fit_model(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.threshold = getattr(model.config, "decision_threshold", self.threshold)

    def tune(
        self, outcomes: Sequence[Any], rows: Mapping[str, Sequence[Any]], label_names: Sequence[str]
    ) -> dict[str, Any]:
        """The threshold of highest micro-F1; of several, the one nearest to a half."""
        from sklearn.metrics import f1_score

        truth, scores = self._indicators(rows, label_names), np.array(outcomes)
        found = {edge: f1_score(truth, scores >= edge, average="micro", zero_division=0) for edge in _THRESHOLDS}
        return {"decision_threshold": max(found, key=lambda edge: (found[edge], -abs(edge - 0.5)))}

    def encode(
        self,
        rows: Mapping[str, Sequence[Any]],
        tokenizer: PreTrainedTokenizerBase,
        label_names: Sequence[str],
        max_length: int,
    ) -> dict[str, list[Any]]:
        columns = encode_text(tokenizer, rows["text"], rows.get("text_pair"), max_length)
        if "label" in rows:
            columns["label"] = self._indicators(rows, label_names).tolist()
        return columns

    def loss_sum(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Each example's mean over the labels, summed over examples, as transformers' own loss has it."""
        import torch

        assert batch.labels is not None
        logits = at_least_float32(logits)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch.labels.to(logits), reduction="sum")
        return loss / logits.shape[1]

    def outcomes(self, logits: torch.Tensor, batch: Batch) -> list[Any]:
        """Each example's probability of every label."""
        return list(logits.float().sigmoid().cpu().numpy())

    def metrics(
        self, outcomes: Sequence[Any], rows: Mapping[str, Sequence[Any]], label_names: Sequence[str], loss: float
    ) -> dict[str, float]:
        from sklearn.metrics import f1_score

        truth, predicted = self._indicators(rows, label_names), np.array(outcomes) >= self.threshold
        return {
            "loss": loss,
            "micro_f1": float(f1_score(truth, predicted, average="micro", zero_division=0)),
            "macro_f1": float(f1_score(truth, predicted, average="macro", zero_division=0)),
            "threshold": self.threshold,
        }

    def show(self, row: Mapping[str, Any]) -> tuple[str, str]:
        given, cell = super().show(row)
        return given, (", ".join(self.labels_in(cell)) or "없음") if cell else ""

    def readable(
        self, outcome: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Any]:
        chosen = [position for position in np.argsort(-outcome) if outcome[position] >= self.threshold]
        return {
            "label": [label_names[position] for position in chosen],
            "score": [float(outcome[position]) for position in chosen],
        }

    def details(
        self, outcomes: Sequence[Any], rows: Mapping[str, Sequence[Any]], label_names: Sequence[str]
    ) -> list[str]:
        from sklearn.metrics import f1_score

        truth, predicted = self._indicators(rows, label_names), np.array(outcomes) >= self.threshold
        scores = f1_score(truth, predicted, average=None, zero_division=0)
        return [
            "라벨별 F1",
            *(
                f"  {name}: {score:.4f} (정답 {int(count):,}개)"
                for name, score, count in zip(label_names, scores, truth.sum(0), strict=True)
            ),
        ]

    def _indicators(self, rows: Mapping[str, Sequence[Any]], label_names: Sequence[str]) -> np.ndarray:
        """(rows, labels) of 0 and 1, int64."""
        ids = {name: position for position, name in enumerate(label_names)}
        table = np.zeros((len(rows["label"]), len(label_names)), dtype=np.int64)
        for number, cell in enumerate(rows["label"]):
            table[number, [ids[label] for label in self.labels_in(cell)]] = 1
        return table
