"""How pairs, lists and their scores are shown to a person."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetuning.tasks.evidence import Case, Distribution, Evidence, Part, Ranking, Scatter, ranked_wrong
from finetuning.tasks.parts import RowColumns
from finetuning.tasks.presenter import Presenter
from finetuning.tasks.ranking import ranks_of
from finetuning.tasks.reranker.rows import by_row
from finetuning.tasks.reranker.scoring import RerankScorer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class RerankPresenter(Presenter):
    """Shows the score of a pair, and of a list the scores with the rank of each passage.

    Args:
        scorer: Knows what a score is, and from which on a pair counts as relevant.
    """

    def __init__(self, scorer: RerankScorer) -> None:
        self.scorer = scorer

    def show(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """Return the query with its passage, and the label; of a list its good passages. See `Presenter.show`."""
        if "passages" not in row:
            return f"{row['question']} / {row['context']}", str(row.get("label", ""))
        if "labels" not in row:
            return row["question"], ""
        passages, labels = json.loads(row["passages"]), json.loads(row["labels"])
        return row["question"], " / ".join(
            text for text, label in zip(passages, labels, strict=True) if label == max(labels)
        )

    def readable(
        self, prediction: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Any]:
        """Return the score of a pair; of a list the score and the rank of each passage, in the order of the row."""
        shown = [self.scorer.shown(score) for score in prediction]
        if "passages" not in row:
            return {"score": shown[0]}
        scores = np.array(prediction)
        return {"score": shown, "rank": ranks_of(scores, np.zeros(len(scores))).tolist()}

    def phrase(
        self, prediction: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> list[Any]:
        """Return the score of a pair, or the passage that a list is led by; see `Presenter.phrase`."""
        if "passages" not in row:
            return [self.scorer.shown(prediction[0])]
        best = int(np.argmax(prediction))
        return [json.loads(row["passages"])[best], self.scorer.shown(prediction[best])]

    def evidence(self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]) -> Evidence:
        """Return how the scores lie, and the rows that are wrong; see `Presenter.evidence`."""
        found = list(by_row(predictions, rows))
        labels = np.concatenate([one.labels for one in found])
        shown = np.array([self.scorer.shown(score) for one in found for score in one.scores])
        if self.scorer.best_metric == "spearman":
            error = np.abs(shown - labels)
            return Evidence((Scatter(labels, shown),), ranked_wrong("오차가 큰 행", "오차", error, error > 0, ""))
        groups = {"관련 있는 문서": shown[labels > 0], "관련 없는 문서": shown[labels <= 0]}
        scores = Distribution("질문과 문서의 점수", "점수", groups)
        return Evidence((scores,), self._misses(found, shown) if "passages" in rows else self._wrong(labels, shown))

    def _wrong(self, labels: np.ndarray, shown: np.ndarray) -> Ranking:
        distance = np.abs(shown - self.scorer.threshold)
        return ranked_wrong("틀린 쌍", "임계값과의 차이", distance, (shown >= self.scorer.threshold) != (labels > 0))

    def _misses(self, found: Sequence[Any], shown: np.ndarray) -> Ranking:
        first = [min(one.ranks()[one.labels > 0].tolist(), default=0) for one in found]
        ranks = np.array(first, dtype=np.float64)
        return ranked_wrong("정답 문서가 맨 위에 없는 질문", "정답의 순위", ranks, ranks > 1)

    def case(
        self, prediction: Any, row: Mapping[str, Any], label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> Case:
        """Return a pair with its label and score; of a query its good passages and the one it was led to."""
        if "passages" not in row:
            score = f"{self.scorer.shown(prediction[0]):.3f}"
            return Case((
                Part("질문", row["question"]), Part("문서", row["context"]), Part("정답", str(row["label"])),
                Part("예측", score),
            ))  # fmt: skip
        asked, truth = self.show(row)
        best, score = self.phrase(prediction, row, label_names, tokenizer)
        return Case((Part("질문", asked), Part("정답", truth), Part("예측", f"({score:.3f}) {best}")))
