"""Regression on a text, or on a pair of texts: a number such as how similar two sentences are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from exceptions import BadRow, DataError
from finetuning.cells import as_text
from finetuning.config.schema import Settings
from finetuning.tasks.classification import choose
from finetuning.tasks.classification.inputs import (
    HeadScorer,
    LabelledTextEncoder,
    LabelledTextReader,
    LabelledTextTask,
)
from finetuning.tasks.evidence import Case, Distribution, Evidence, Part, Scatter, ranked_wrong
from finetuning.tasks.parts import RowColumns
from finetuning.tasks.presenter import Presenter
from finetuning.tasks.tensors import at_least_float32
from finetuning.types import Batch, Naive

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

# KLUE-STS counts a pair of sentences as similar from a score of 3 (of 0 to 5) on, in labels and predictions.
_SIMILAR, _HIGHEST = 3.0, 5.0


class TextRegression(LabelledTextTask):
    """One number for each text: mean squared error of a single output."""

    name = choose.REGRESSION
    aliases = ("regression", "sentence-similarity", "텍스트 회귀", "문장 유사도", "회귀")

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.reads = NumberReader(settings)
        self.encodes = NumberEncoder(settings)
        self.scores = NumberScorer(settings)
        self.shows = NumberPresenter()


class NumberReader(LabelledTextReader):
    """Reads a text and a number."""

    def prepare(self, row: dict[str, Any]) -> dict[str, Any]:
        """Check that the label is a number and bring it into one spelling; see `RowReader.prepare`."""
        if "label" in row and not _is_score(row["label"]):
            raise BadRow("숫자가 아닌 라벨")
        if "label" in row:
            row["label"] = as_text(float(row["label"]))  # 4.750 in a text file is 4.75 in a spreadsheet
        return row

    def label_names(self, train_labels: Mapping[str, int]) -> tuple[str, ...]:
        """Check that the scores differ, and return no names; see `RowReader.label_names`."""
        if len(train_labels) < 2:
            raise DataError(
                f"학습 데이터의 라벨이 한 가지뿐입니다: {next(iter(train_labels), '없음')}",
                where=f"라벨 열 '{self.settings.data.label_column}'",
                remedy="서로 다른 점수가 있는 데이터인지 확인하세요.",
            )
        if self.settings.model.num_labels not in (None, 1):
            raise DataError(
                f"회귀는 점수 하나를 예측하는데 model.num_labels는 {self.settings.model.num_labels}입니다.",
                where="model.num_labels",
                remedy="model.num_labels를 지우세요. 라벨로 분류하려면 model.task를 text-classification으로 쓰세요.",
            )
        return ()


class NumberEncoder(LabelledTextEncoder):
    """Encodes a text and its score."""

    def targets(self, cells: Sequence[str], label_names: Sequence[str]) -> list[float]:
        """Return each cell as a number."""
        return [float(cell) for cell in cells]


class NumberScorer(HeadScorer):
    """Mean squared error. The best model is the one of highest Pearson correlation."""

    best_metric = "pearson"
    greater_is_better = True

    def config_options(self, label_names: Sequence[str]) -> dict[str, Any]:
        """Return a single output and transformers' name of the problem."""
        return {"num_labels": 1, "problem_type": "regression"}

    def loss_sum(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the squared error summed over examples."""
        import torch

        assert batch.labels is not None
        scores = at_least_float32(outputs.squeeze(-1))
        return torch.nn.functional.mse_loss(scores, batch.labels.to(scores), reduction="sum")

    def predictions(self, outputs: torch.Tensor, batch: Batch) -> list[Any]:
        """Return each example's score."""
        scores: list[Any] = outputs.squeeze(-1).float().cpu().tolist()
        return scores

    def baseline(self, train_labels: Mapping[str, int], count: int, label_names: Sequence[str]) -> Naive | None:
        """Return the mean of train, always; see `Scorer.baseline`."""
        if not train_labels:
            return None
        mean = sum(float(label) * rows for label, rows in train_labels.items()) / sum(train_labels.values())
        return Naive(f"항상 학습 데이터의 평균({mean:.3g})으로만 예측하면", [mean] * count)

    def drawn_score(
        self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]
    ) -> Callable[[np.ndarray], float]:
        """Return Pearson's correlation of drawn rows; see `Scorer.drawn_score`."""
        truth, scores = np.array([float(label) for label in rows["label"]]), np.array(predictions, dtype=np.float64)

        def correlation(places: np.ndarray) -> float:
            x, y = truth[places] - truth[places].mean(), scores[places] - scores[places].mean()
            lengths = float(np.sqrt((x @ x) * (y @ y)))
            return float(x @ y) / lengths if lengths > 0 else 0.0

        return correlation

    def metrics(
        self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str], loss: float
    ) -> dict[str, float]:
        """Compute Pearson's and Spearman's correlation.

        Labels from 0 to 5 on both sides of 3 get KLUE-STS's F1, too, which counts a pair as similar from 3 on.
        """
        from scipy.stats import pearsonr, spearmanr
        from sklearn.metrics import f1_score

        truth, scores = np.array([float(label) for label in rows["label"]]), np.array(predictions)
        constant = len(set(scores.tolist())) < 2 or len(set(truth.tolist())) < 2  # a correlation is not defined then
        found = {
            "loss": loss,
            "pearson": 0.0 if constant else float(pearsonr(truth, scores)[0]),
            "spearman": 0.0 if constant else float(spearmanr(truth, scores)[0]),
        }
        if 0 <= truth.min() < _SIMILAR <= truth.max() <= _HIGHEST:
            found["f1_at_3"] = float(f1_score(truth >= _SIMILAR, scores >= _SIMILAR, zero_division=0))
        return found


class NumberPresenter(Presenter):
    """Shows the score."""

    def readable(
        self, prediction: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Any]:
        """Return the score."""
        return {"score": prediction}

    def evidence(self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]) -> Evidence:
        """Return the scores beside the true ones, and the rows by their error; see `Presenter.evidence`."""
        truth, said = np.array([float(label) for label in rows["label"]]), np.array(predictions, dtype=np.float64)
        error = np.abs(said - truth)
        return Evidence(
            (Scatter(truth, said), Distribution("예측한 점수와 정답의 차이", "예측 − 정답", {"행": said - truth})),
            ranked_wrong("오차가 큰 행", "오차", error, error > 0, wrong_are=""),
        )

    def case(
        self, prediction: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> Case:
        """Return the text, its score and the predicted one; see `Presenter.case`."""
        given, truth = self.show(row)
        return Case((Part("텍스트", given), Part("정답", f"{float(truth):g}"), Part("예측", f"{prediction:.3f}")))


def _is_score(cell: Any) -> bool:
    try:
        return not isinstance(cell, bool) and math.isfinite(float(cell))
    except (TypeError, ValueError, OverflowError):
        return False
