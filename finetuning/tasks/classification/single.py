"""Classification of a text, or of a pair of texts, into one of several labels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from exceptions import BadRow, DataError
from finetuning.cells import as_label
from finetuning.config.schema import Settings
from finetuning.tasks.classification import choose
from finetuning.tasks.classification.evidence import confusion, label_scores
from finetuning.tasks.classification.inputs import (
    HeadScorer,
    LabelledTextEncoder,
    LabelledTextReader,
    LabelledTextTask,
)
from finetuning.tasks.classification.labels import always_commonest, in_order
from finetuning.tasks.classification.relations import relation_scores
from finetuning.tasks.evidence import Case, Distribution, Evidence, Part, ranked_wrong
from finetuning.tasks.loss_settings import LabelLossScorer
from finetuning.tasks.parts import RowColumns
from finetuning.tasks.presenter import Presenter
from finetuning.tasks.tensors import at_least_float32
from finetuning.types import Batch, Naive

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger(__name__)
_MAX_LABELS = 1000


class TextClassification(LabelledTextTask):
    """One label for each text: cross-entropy over a sequence-classification head."""

    name = choose.SINGLE
    aliases = (
        "sequence-classification", "sentiment-analysis", "텍스트 분류", "문장 분류", "문서 분류", "감성 분석",
        "감성 분류", "감정 분석", "감정 분류",
    )  # fmt: skip

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.reads = LabelReader(settings)
        self.encodes = LabelEncoder(settings)
        self.scores = LabelScorer(settings)
        self.shows = LabelPresenter()

    @classmethod
    def meant_by(cls, settings: Settings) -> str:
        """Return the name of this task, of regression, or of multi-label classification."""
        return choose.by_settings(settings)


class LabelReader(LabelledTextReader):
    """Reads a text and one label."""

    has_labels = True

    def prepare(self, row: dict[str, Any]) -> dict[str, Any]:
        """Bring the label into one spelling; see `RowReader.prepare`."""
        if isinstance(row.get("label"), list | dict):
            raise BadRow("목록인 라벨(라벨이 여럿이면 data.multi_label: true)")
        if "label" in row:
            row["label"] = as_label(row["label"])
        return row

    def relabelled(self, cell: Any, names: Mapping[str, str | None]) -> tuple[Any, Sequence[str]]:
        """Rename the label; see `RowReader.relabelled`."""
        return (names[cell], (cell,)) if cell in names else (cell, ())

    def label_names(self, train_labels: Mapping[str, int]) -> tuple[str, ...]:
        """Return the labels of train in the order of their ids; see `RowReader.label_names`."""
        column = self.settings.data.label_column
        if len(train_labels) < 2:
            only = next(iter(train_labels), "없음")
            raise DataError(
                f"학습 데이터의 라벨이 한 가지뿐입니다: {only}",
                where=f"라벨 열 '{column}'",
                remedy="라벨이 다른 열에 있으면 --label_column 열이름 플래그로 고르고, 맞는 열이면 라벨이 둘 이상 있는 "
                "데이터를 쓰세요.",
            )
        if len(train_labels) > _MAX_LABELS or len(train_labels) == sum(train_labels.values()) > 20:
            raise DataError(
                f"라벨이 {len(train_labels):,}가지나 됩니다. 분류 라벨이 아닌 열로 보입니다.",
                where=f"라벨 열 '{column}'",
                remedy="data.label_column에 라벨이 있는 열의 이름을 쓰세요.",
            )
        return in_order(train_labels, self.settings)

    def refine(self, roles: Sequence[str], train_labels: Mapping[str, int]) -> Settings:
        """Return settings for regression if the labels are scores; see `RowReader.refine`."""
        settings = super().refine(roles, train_labels)
        if not choose.are_scores(train_labels, settings):
            return settings
        _log.info(
            "라벨이 소수이므로 점수를 예측하는 회귀(text-regression)로 데이터를 다시 읽습니다. "
            "라벨로 분류하려면 model.num_labels에 라벨의 수를 쓰세요."
        )
        return settings.model_copy(update={"model": settings.model.model_copy(update={"task": choose.REGRESSION})})


class LabelEncoder(LabelledTextEncoder):
    """Encodes a text and the id of its label."""

    def targets(self, cells: Sequence[str], label_names: Sequence[str]) -> list[int]:
        """Return the id of each label."""
        ids = {name: position for position, name in enumerate(label_names)}
        return [ids[label] for label in cells]


class LabelScorer(LabelLossScorer, HeadScorer):
    """Cross-entropy. The best model is the one of highest accuracy."""

    best_metric = "accuracy"
    greater_is_better = True

    def config_options(self, label_names: Sequence[str]) -> dict[str, Any]:
        """Return the label names and transformers' name of the problem."""
        return {**super().config_options(label_names), "problem_type": "single_label_classification"}

    def loss_sum(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the cross-entropy summed over examples."""
        import torch

        assert batch.labels is not None
        return torch.nn.functional.cross_entropy(at_least_float32(outputs), batch.labels, reduction="sum")

    def predictions(self, outputs: torch.Tensor, batch: Batch) -> list[Any]:
        """Return each example's probabilities, (labels,) float32 arrays."""
        return list(outputs.float().softmax(-1).cpu().numpy())

    def baseline(self, train_labels: Mapping[str, int], count: int, label_names: Sequence[str]) -> Naive | None:
        """Return the commonest label of train, always; see `Scorer.baseline`."""
        return always_commonest(train_labels, count, label_names)

    def drawn_score(
        self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]
    ) -> Callable[[np.ndarray], float]:
        """Return the accuracy of drawn rows; see `Scorer.drawn_score`."""
        said = [label_names[int(scores.argmax())] for scores in predictions]
        right = np.array([one == label for one, label in zip(said, rows["label"], strict=True)])
        return lambda places: float(right[places].mean())

    def metrics(
        self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str], loss: float
    ) -> dict[str, float]:
        """Compute accuracy, macro-F1 and, for relations, KLUE-RE's micro-F1 and AUPRC."""
        from sklearn.metrics import accuracy_score, f1_score

        truth, predicted = list(rows["label"]), [label_names[int(scores.argmax())] for scores in predictions]
        return {
            "loss": loss,
            "accuracy": float(accuracy_score(truth, predicted)),
            "macro_f1": float(f1_score(truth, predicted, average="macro", zero_division=0)),
            **relation_scores(np.stack(predictions), truth, label_names),
        }


class LabelPresenter(Presenter):
    """Shows the likeliest label and its probability, and a confusion matrix."""

    def readable(
        self, prediction: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Any]:
        """Return the likeliest label and its probability."""
        best = int(prediction.argmax())
        return {"label": label_names[best], "score": float(prediction[best])}

    def labels_said(self, readable: Mapping[str, Any]) -> Sequence[str]:
        """Return the label."""
        return (readable["label"],)

    def details(self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]) -> list[str]:
        """Return the confusion matrix of at most 20 labels."""
        from sklearn.metrics import confusion_matrix

        if len(label_names) > 20:
            return []
        predicted = [label_names[int(scores.argmax())] for scores in predictions]
        table = confusion_matrix(list(rows["label"]), predicted, labels=list(label_names))
        lines = ["혼동 행렬 (행: 정답, 열: 예측)"]
        lines += [
            f"  {name}: " + ", ".join(f"{column} {count:,}" for column, count in zip(label_names, row, strict=True))
            for name, row in zip(label_names, table, strict=True)
        ]
        return lines

    def evidence(self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]) -> Evidence:
        """Return the confusion matrix, scores by label, and wrong rows by confidence; see `Presenter.evidence`."""
        ids = {name: position for position, name in enumerate(label_names)}
        truth = np.array([ids[label] for label in rows["label"]], dtype=np.int64)
        said = np.array([int(scores.argmax()) for scores in predictions], dtype=np.int64)
        sure = np.array([float(scores.max()) for scores in predictions])
        right, table = truth == said, confusion(truth, said, label_names)
        counts = table.counts
        return Evidence(
            (
                table,
                label_scores(label_names, counts.diagonal(), counts.sum(1), counts.sum(0)),
                Distribution("예측한 라벨의 확률", "확률", {"맞은 행": sure[right], "틀린 행": sure[~right]}),
            ),
            ranked_wrong("틀린 행", "확률", sure, ~right),
        )

    def case(
        self, prediction: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> Case:
        """Return the text, its label and the predicted one; see `Presenter.case`."""
        given, truth = self.show(row)
        said = str(self.readable(prediction, row, label_names, tokenizer)["label"])
        return Case((Part("텍스트", given), Part("정답", truth), Part("예측", said)))
