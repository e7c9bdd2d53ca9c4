"""Classification of a text, or of a pair of texts, into any number of labels at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from exceptions import BadRow, DataError
from finetuning.cells import as_label, json_value
from finetuning.config.schema import Settings
from finetuning.tasks.classification import choose
from finetuning.tasks.classification.evidence import label_scores
from finetuning.tasks.classification.inputs import (
    HeadScorer,
    LabelledTextEncoder,
    LabelledTextReader,
    LabelledTextTask,
)
from finetuning.tasks.classification.labels import always_commonest, in_order
from finetuning.tasks.evidence import Case, Distribution, Evidence, Part, ranked_wrong
from finetuning.tasks.parts import RowColumns
from finetuning.tasks.presenter import Presenter
from finetuning.tasks.tensors import at_least_float32
from finetuning.types import Batch, Naive

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_THRESHOLDS = (np.arange(1, 20) / 20).tolist()  # 0.05 to 0.95


class MultiLabelClassification(LabelledTextTask):
    """Any number of labels for each text: binary cross-entropy for each label."""

    name = choose.MULTI_LABEL
    aliases = ("multilabel-classification", "다중 라벨 분류", "멀티라벨 분류")

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.reads = LabelSetReader(settings)
        self.encodes = LabelSetEncoder(settings)
        self.scores = LabelSetScorer(settings)
        self.shows = LabelSetPresenter(self.scores)


class LabelSetReader(LabelledTextReader):
    """Reads a text and its labels: a JSON list, or names divided by `data.label_separator`. The list may be empty."""

    has_labels = True

    def prepare(self, row: dict[str, Any]) -> dict[str, Any]:
        """Split the label's cell into a sorted list of names; see `RowReader.prepare`."""
        if "label" in row:
            row["label"] = self._split(row["label"])
        return row

    def _split(self, cell: Any) -> list[str]:
        if isinstance(cell, str) and cell.lstrip().startswith("["):
            try:
                cell = json_value(cell)
            except ValueError:
                raise BadRow("JSON 목록이 아닌 라벨") from None
        if isinstance(cell, str):
            cell = cell.split(self.settings.data.label_separator)
        if not isinstance(cell, list):
            cell = [cell]
        if any(isinstance(label, list | dict) for label in cell):
            raise BadRow("문자열의 목록이 아닌 라벨")
        return sorted({as_label(label) for label in cell} - {""})

    def relabelled(self, cell: Any, names: Mapping[str, str | None]) -> tuple[Any, Sequence[str]]:
        """Rename the labels of the list; see `RowReader.relabelled`."""
        renamed = {names.get(label, label) for label in cell} - {None}
        return sorted(map(str, renamed)), [label for label in cell if label in names]

    def labels_in(self, cell: str) -> Sequence[str]:
        """Return the labels in a JSON list."""
        return _labels_in(cell)

    def label_names(self, train_labels: Mapping[str, int]) -> tuple[str, ...]:
        """Return the labels of train in the order of their ids; see `RowReader.label_names`."""
        separator = self.settings.data.label_separator
        if len(train_labels) < 2:
            raise DataError(
                f"학습 데이터의 라벨이 두 가지보다 적습니다: {next(iter(train_labels), '없음')}",
                where=f"라벨 열 '{self.settings.data.label_column}'",
                remedy=f"라벨 칸이 JSON 목록이거나 data.label_separator(지금 '{separator}')로 나뉘었는지 확인하세요. "
                "라벨 하나의 유무를 구분하는 것이면 text-classification을 쓰세요.",
            )
        return in_order(train_labels, self.settings)


class LabelSetEncoder(LabelledTextEncoder):
    """Encodes a text, and 0 or 1 for every label."""

    def targets(self, cells: Sequence[str], label_names: Sequence[str]) -> list[list[int]]:
        """Return each row's indicators, one for every label."""
        table: list[list[int]] = _indicators(cells, label_names).tolist()
        return table


class LabelSetScorer(HeadScorer):
    """Binary cross-entropy. The best model is the one of highest micro-F1.

    Args:
        settings: Settings of the run.

    Attributes:
        threshold: Probability from which on a label is predicted: the one of highest micro-F1 on the validation split.
    """

    best_metric = "micro_f1"
    greater_is_better = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.threshold = 0.5

    def config_options(self, label_names: Sequence[str]) -> dict[str, Any]:
        """Return the label names and transformers' name of the problem."""
        return {**super().config_options(label_names), "problem_type": "multi_label_classification"}

    def fit_model(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Read the threshold from the model's config."""
        self.threshold = getattr(model.config, "decision_threshold", self.threshold)

    def calibrate(self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]) -> dict[str, Any]:
        """Return the threshold of highest micro-F1; of several, the one nearest to 0.5. See `Scorer.calibrate`."""
        from sklearn.metrics import f1_score

        truth, scores = _indicators(rows["label"], label_names), np.array(predictions)
        found = {edge: f1_score(truth, scores >= edge, average="micro", zero_division=0) for edge in _THRESHOLDS}
        return {"decision_threshold": max(found, key=lambda edge: (found[edge], -abs(edge - 0.5)))}

    def loss_sum(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return each example's mean over the labels, summed over examples, as in transformers' own loss."""
        import torch

        assert batch.labels is not None
        logits = at_least_float32(outputs)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch.labels.to(logits), reduction="sum")
        return loss / logits.shape[1]

    def predictions(self, outputs: torch.Tensor, batch: Batch) -> list[Any]:
        """Return each example's probability of every label, (labels,) float32 arrays."""
        return list(outputs.float().sigmoid().cpu().numpy())

    def baseline(self, train_labels: Mapping[str, int], count: int, label_names: Sequence[str]) -> Naive | None:
        """Return the commonest label of train alone, always; see `Scorer.baseline`."""
        return always_commonest(train_labels, count, label_names)

    def drawn_score(
        self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]
    ) -> Callable[[np.ndarray], float]:
        """Return the micro-F1 of drawn rows; see `Scorer.drawn_score`."""
        truth, said = _indicators(rows["label"], label_names) > 0, np.array(predictions) >= self.threshold
        both, either = (truth & said).sum(1), truth.sum(1) + said.sum(1)
        return lambda places: float(2 * both[places].sum() / max(1, either[places].sum()))

    def metrics(
        self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str], loss: float
    ) -> dict[str, float]:
        """Compute micro-F1 and macro-F1 at the threshold."""
        from sklearn.metrics import f1_score

        truth, predicted = _indicators(rows["label"], label_names), np.array(predictions) >= self.threshold
        return {
            "loss": loss,
            "micro_f1": float(f1_score(truth, predicted, average="micro", zero_division=0)),
            "macro_f1": float(f1_score(truth, predicted, average="macro", zero_division=0)),
            "threshold": self.threshold,
        }


class LabelSetPresenter(Presenter):
    """Shows the labels whose probability reaches the scorer's threshold, and F1 by label."""

    def __init__(self, scorer: LabelSetScorer) -> None:
        self.scorer = scorer

    def show(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """Return the text, and its labels with commas; see `Presenter.show`."""
        given, cell = super().show(row)
        return given, (", ".join(_labels_in(cell)) or "없음") if cell else ""

    def readable(
        self, prediction: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Any]:
        """Return the predicted labels, the likeliest first, and their probabilities."""
        threshold = self.scorer.threshold
        chosen = [position for position in np.argsort(-prediction) if prediction[position] >= threshold]
        return {
            "label": [label_names[position] for position in chosen],
            "score": [float(prediction[position]) for position in chosen],
        }

    def labels_said(self, readable: Mapping[str, Any]) -> Sequence[str]:
        """Return the labels of a text, `없음` where it has none."""
        return readable["label"] or ("없음",)

    def details(self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]) -> list[str]:
        """Return the F1 and the count of every label."""
        from sklearn.metrics import f1_score

        truth, predicted = _indicators(rows["label"], label_names), np.array(predictions) >= self.scorer.threshold
        scores = f1_score(truth, predicted, average=None, zero_division=0)
        return [
            "라벨별 F1",
            *(
                f"  {name}: {score:.4f} (정답 {int(count):,}개)"
                for name, score, count in zip(label_names, scores, truth.sum(0), strict=True)
            ),
        ]

    def evidence(self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]) -> Evidence:
        """Return scores by label, and the rows with a wrong label by confidence; see `Presenter.evidence`."""
        truth, scores = _indicators(list(rows["label"]), label_names), np.array(predictions)
        said = scores >= self.scorer.threshold
        is_wrong = said != truth
        sure = np.where(said, scores, 1 - scores)  # of each label, that it is there or that it is not
        return Evidence(
            (
                label_scores(label_names, (said & (truth == 1)).sum(0), truth.sum(0), said.sum(0)),
                Distribution(
                    f"라벨의 확률 (임계값 {self.scorer.threshold:.2f})",
                    "확률",
                    {"정답인 라벨": scores[truth == 1], "정답이 아닌 라벨": scores[truth == 0]},
                ),
            ),
            ranked_wrong(
                "틀린 라벨이 있는 행",
                "가장 틀린 라벨의 확률",
                np.where(is_wrong, sure, 0).max(1, initial=0),
                is_wrong.any(1),
            ),
        )

    def case(
        self, prediction: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> Case:
        """Return the text, its labels and the predicted ones with their probabilities; see `Presenter.case`."""
        given, truth = self.show(row)
        made = self.readable(prediction, row, label_names, tokenizer)
        said = ", ".join(f"{label} {score:.2f}" for label, score in zip(made["label"], made["score"], strict=True))
        return Case((Part("텍스트", given), Part("정답", truth), Part("예측", said or "없음")))


def _labels_in(cell: str) -> list[str]:
    labels: list[str] = json.loads(cell)
    return labels


def _indicators(cells: Sequence[str], label_names: Sequence[str]) -> np.ndarray:
    """Return 1 for every label of a row and 0 for the others, (rows, labels) int64."""
    ids = {name: position for position, name in enumerate(label_names)}
    table = np.zeros((len(cells), len(label_names)), dtype=np.int64)
    for number, cell in enumerate(cells):
        table[number, [ids[label] for label in _labels_in(cell)]] = 1
    return table
