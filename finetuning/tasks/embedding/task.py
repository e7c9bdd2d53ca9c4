"""Embeddings for search and similarity: texts as vectors, near for texts that belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetuning.config.schema import Settings
from finetuning.tasks.base import Task
from finetuning.tasks.embedding.encoding import EmbeddingEncoder
from finetuning.tasks.embedding.losses import LOSSES
from finetuning.tasks.embedding.reader import EmbeddingReader
from finetuning.tasks.embedding.retrieval import DEPTH
from finetuning.tasks.embedding.scoring import Embedded, RetrievalScorer, SimilarityScorer
from finetuning.tasks.embedding.sentence_transformers import description_of
from finetuning.tasks.evidence import Case, Distribution, Evidence, Part, Scatter, ranked_wrong
from finetuning.tasks.parts import RowColumns
from finetuning.tasks.presenter import Presenter

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_USAGE = """
# pip install sentence-transformers
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("이_폴더")
queries = model.encode(["무엇을 찾나요?"], prompt_name="query")
passages = model.encode(["찾을 문서"], prompt_name="document")
print(model.similarity(queries, passages))
"""


class EmbeddingTask(Task):
    """One vector a text. Its loss is that of a whole window: the passages of the others are the negatives."""

    name = "embedding"
    aliases = ("embeddings", "sentence-embedding", "retrieval", "임베딩", "문장 임베딩", "검색")
    auto_class = "AutoModel"
    pipeline = None
    usage = _USAGE
    objective = "contrastive"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        takes_scores = LOSSES[settings.embedding.loss].takes_scores
        self.reads = EmbeddingReader(settings)
        self.encodes = EmbeddingEncoder(settings)
        self.scores = SimilarityScorer(settings) if takes_scores else RetrievalScorer(settings)
        self.shows = SimilarityPresenter() if takes_scores else RetrievalPresenter()

    def exported(self, model: PreTrainedModel) -> torch.nn.Module:
        """Return the model with pooling and normalisation; see `Task.exported`."""
        from finetuning.tasks.embedding.vectors import Vectors

        return Vectors(model, self.settings.embedding)

    def beside_model(self, model: PreTrainedModel, max_length: int) -> Mapping[str, Any]:
        """Return the files that sentence-transformers reads; see `Task.beside_model`."""
        return description_of(self.settings.embedding, model.config.get_text_config().hidden_size, max_length)


class EmbeddingPresenter(Presenter):
    """Shows vectors as `predict` writes them."""

    gives_vectors = True

    def show(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """Return a row's question and its passage; see `Presenter.show`."""
        return str(row.get("question", row.get("context", ""))), str(row["context"]) if "question" in row else ""

    def readable(
        self, prediction: Embedded, row: Mapping[str, Any], label_names: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
    ) -> dict[str, Any]:  # fmt: skip
        """Return the vector of each text of the row."""
        names = [name for name in ("question", "context") if name in row]
        if len(names) == 1:
            return {"embedding": prediction.vectors[0][0].tolist()}
        vectors = prediction.vectors[0][:2].tolist()
        return dict(zip(("question_embedding", "passage_embedding"), vectors, strict=True))

    def phrase(
        self, prediction: Embedded, row: Mapping[str, Any], label_names: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
    ) -> list[Any]:  # fmt: skip
        """Return how similar the row's two texts are."""
        return [f"유사도 {prediction.similarity():.3f}"]


class RetrievalPresenter(EmbeddingPresenter):
    """Shows what a search among the split's passages finds."""

    searches = True

    def phrase(
        self, prediction: Embedded, row: Mapping[str, Any], label_names: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
    ) -> list[Any]:  # fmt: skip
        """Return the place of the right passage among those that were found."""
        return [_place_of(prediction)]

    def mistake(
        self, prediction: Embedded, row: Mapping[str, Any], label_names: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
    ) -> dict[str, Any]:  # fmt: skip
        """Return where the right passage is and what is nearest instead; see `Presenter.mistake`."""
        ranks = prediction.hits.ranks() if prediction.hits is not None else []
        (nearest, score), *_ = prediction.nearest
        return {
            "rank": ranks[0] + 1 if ranks else None, "similarity": prediction.similarity(), "nearest": nearest,
            "nearest_similarity": score,
        }  # fmt: skip

    def evidence(self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]) -> Evidence:
        """Return how similar right and wrong passages are, and the queries that miss theirs; see `Presenter`."""
        own = np.array([row.similarity() for row in predictions])
        wrong = [_nearest_wrong(row) for row in predictions]
        gap = np.array([np.nan if other is None else other - near for other, near in zip(wrong, own, strict=True)])
        missed = np.array([0 not in row.hits.ranks() for row in predictions])
        known = np.array([value for value in wrong if value is not None])
        return Evidence(
            (
                Distribution(
                    "질문과 문서의 유사도", "유사도", {"정답 문서": own, "가장 가까운 다른 문서": known}
                ),
            ),
            ranked_wrong("정답 문서가 첫 번째가 아닌 질문", "유사도 차이", np.nan_to_num(gap), missed, "찾지 못한 행"),
        )  # fmt: skip

    def case(
        self, prediction: Embedded, row: Mapping[str, Any], label_names: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
    ) -> Case:  # fmt: skip
        """Return the question, its passage, and the nearest passages; see `Presenter.case`."""
        found = "\n\n".join(
            f"{place}. ({score:.3f}) {text}" for place, (text, score) in enumerate(prediction.nearest, 1)
        )
        right = f"({prediction.similarity():.3f}, {_place_of(prediction)}) {row['context']}"
        return Case((Part("질문", row["question"]), Part("정답 문서", right), Part("찾은 문서", found)))


class SimilarityPresenter(EmbeddingPresenter):
    """Shows cosines beside scores."""

    def show(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """Return a row's two texts and their score; see `Presenter.show`."""
        return " / ".join(str(row[name]) for name in ("question", "context") if name in row), str(row.get("label", ""))

    def evidence(self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]) -> Evidence:
        """Return the cosines beside the true scores; see `Presenter.evidence`."""
        truth = np.array([float(cell) for cell in rows["label"]])
        return Evidence((Scatter(truth, np.array([row.similarity() for row in predictions])),))


def _place_of(prediction: Embedded) -> str:
    """Return where a search finds the right passage, as a Korean phrase."""
    ranks = prediction.hits.ranks() if prediction.hits is not None else []
    return f"정답 문서가 {ranks[0] + 1}번째" if ranks else f"정답 문서가 {DEPTH}번째 안에 없음"


def _nearest_wrong(prediction: Embedded) -> float | None:
    """Return how similar the nearest passage is that does not answer the query; None where all of them do."""
    hits = prediction.hits
    assert hits is not None
    return next(
        (score for place, score in zip(hits.places, hits.scores, strict=True) if place not in hits.relevant), None
    )
