"""Scoring of embeddings: a text's vector, the loss of a window, search in the split's own passages, similarities."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from exceptions import ModelError
from finetuning.tasks.embedding.losses import LOSSES, EmbeddingLoss, pool_of, window_loss
from finetuning.tasks.embedding.retrieval import Hits, metrics_of, search
from finetuning.tasks.model_kind import sees_later_tokens
from finetuning.tasks.parts import RowColumns
from finetuning.tasks.scorer import Scorer
from finetuning.tasks.tensors import at_least_float32
from finetuning.types import Batch, Texts

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NEAREST = 3  # passages of a query that are shown


@dataclass(frozen=True)
class Embedded:
    """What evaluation keeps of a row.

    Attributes:
        vectors: Of each example of the row the vectors of its texts, (texts, dimensions) float32.
        hits: What a search for its query in the split's passages found; None without a query or a passage.
        nearest: The texts of the nearest passages, and how similar they are to the query.
    """

    vectors: tuple[np.ndarray, ...]
    hits: Hits | None = None
    nearest: tuple[tuple[str, float], ...] = ()

    def similarity(self) -> float:
        """Return the cosine of the query and its passage, or of the two texts of a scored pair."""
        query, passage = self.vectors[0][:2]
        length = float(np.linalg.norm(query) * np.linalg.norm(passage))
        return float(query @ passage) / length if length else 0.0


class EmbeddingScorer(Scorer):
    """The vector of a text, pooled from the hidden states of its tokens, and losses over the texts of a window."""

    @property
    def loss(self) -> EmbeddingLoss:
        """The loss that the settings name."""
        return LOSSES[self.settings.embedding.loss]

    def fit_model(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Check that vectors can be made as the settings say; see `Scorer.fit_model`."""
        if getattr(model.config, "is_encoder_decoder", False):
            raise ModelError(
                f"{model.config.model_type} 모델로는 임베딩을 학습하지 않습니다.",
                where=f"model.name: {self.settings.model.name}",
                remedy="BERT나 e5 같은 인코더나, Qwen3-Embedding 같은 디코더 모델을 고르세요.",
            )
        width = model.config.get_text_config().hidden_size
        if too_wide := [one for one in self.settings.embedding.matryoshka_dimensions or () if one > width]:
            raise ModelError(
                f"이 모델의 벡터는 {width}차원인데 더 큰 차원이 있습니다: {', '.join(map(str, too_wide))}",
                where="embedding.matryoshka_dimensions",
                remedy=f"{width} 이하의 차원만 쓰세요.",
            )

    # --- vectors ---

    def embed(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """Return the vector of each sequence, (sequences, width), not normalised, float32 or float64."""
        # a decoder would keep keys and values for the next token
        options = {} if sees_later_tokens(model.config) else {"use_cache": False}
        states = model(**batch.inputs, **options).last_hidden_state
        if batch.places is not None:
            return at_least_float32(states.flatten(0, 1).index_select(0, batch.places))
        mask = batch.inputs["attention_mask"].unsqueeze(-1)
        return (at_least_float32(states) * mask).sum(1) / mask.sum(1)

    def forward(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """Return the vector of each sequence as `predict` writes it, (sequences, width)."""
        import torch

        vectors = self.embed(model, batch)
        return torch.nn.functional.normalize(vectors, dim=1) if self.settings.embedding.normalize else vectors

    # --- losses ---

    def loss_sum(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return 0, with the gradient of every vector: `metrics` computes the loss of a split's windows."""
        return (outputs * 0).sum()

    def training_loss(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """Return a sum over a batch's vectors, for the memory estimate: the objective computes a window's loss."""
        return self.embed(model, batch).square().sum()

    # --- evaluation ---

    def predictions(self, outputs: torch.Tensor, batch: Batch) -> list[Any]:
        """Return the vector of each sequence, float32."""
        return list(outputs.float().cpu().numpy())

    def gather(
        self, predictions: Sequence[Any], examples: Dataset, rows: Dataset, label_names: Sequence[str]
    ) -> list[Any]:
        """Collect the vectors of each row's examples; see `Scorer.gather`."""
        found: dict[int, list[np.ndarray]] = {number: [] for number in rows["row"]}
        for number, vectors in zip(examples["row"], predictions, strict=True):
            found[number].append(np.stack(vectors))
        return [Embedded(tuple(vectors)) for vectors in found.values()]

    def split_loss(self, predictions: Sequence[Embedded], rows: RowColumns) -> float:
        """Return the mean loss of a split, in windows of as many rows as a step has, in their order."""
        import torch

        options, accumulated = self.settings.embedding, self.settings.memory.gradient_accumulation_steps
        size, total, items = self.settings.data.batch_size * accumulated, 0.0, 0
        columns, known = {name: list(rows[name]) for name in rows}, dict[str, int]()
        texts = [_texts_of(columns, place, known) for place in range(len(predictions))]
        for start in range(0, len(predictions), size):
            vectors, marks = list[np.ndarray](), list[tuple[int, int, int, float]]()
            for place in range(start, min(start + size, len(predictions))):
                score = float(columns["label"][place]) / options.highest_score if "label" in columns else math.nan
                for made, contents in zip(predictions[place].vectors, texts[place], strict=True):
                    number = len(vectors)
                    vectors.extend(made)
                    marks.extend((number, part, content, score) for part, content in enumerate(contents))
            pool = pool_of(Texts(*map(np.array, zip(*marks, strict=True))))
            loss, _ = window_loss(torch.from_numpy(np.stack(vectors)), pool, options)
            total, items = total + float(loss), items + len(pool.queries)
        return total / max(1, items)


class RetrievalScorer(EmbeddingScorer):
    """InfoNCE. The best model is the one that finds the passages of the split best, by nDCG@10."""

    best_metric = "ndcg_at_10"
    greater_is_better = True

    def gather(
        self, predictions: Sequence[Any], examples: Dataset, rows: Dataset, label_names: Sequence[str]
    ) -> list[Any]:
        """Collect the vectors of each row, and search for its query among all passages; see `Scorer.gather`."""
        embedded: list[Embedded] = super().gather(predictions, examples, rows, label_names)
        if not {"question", "context"} <= set(rows.column_names):
            return embedded
        columns = {name: rows[name][:] for name in rows.column_names if name != "row"}
        asked = asked_in(embedded, columns)
        hits = search(asked.queries, asked.corpus, asked.relevant)
        return with_hits(embedded, columns["question"], asked, hits, dict(enumerate(asked.passages)))

    def drawn_score(
        self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]
    ) -> Callable[[np.ndarray], float]:
        """Return the mean nDCG@10 of drawn rows, each a share of its query; see `Scorer.drawn_score`."""
        times = Counter(rows["question"])
        shares = np.array([1 / times[question] for question in rows["question"]])
        gains = shares * np.array([row.hits.gain() for row in predictions])
        return lambda places: float(gains[places].sum() / shares[places].sum())

    def metrics(
        self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str], loss: float
    ) -> dict[str, float]:
        """Compute recall, MRR@10 and nDCG@10 over the distinct queries; `loss`, that of no window, is not used."""
        hits = {question: row.hits for question, row in zip(rows["question"], predictions, strict=True)}
        return {"loss": self.split_loss(predictions, rows), **metrics_of(list(hits.values()))}


class SimilarityScorer(EmbeddingScorer):
    """CoSENT or the error of cosines. The best model is the one whose cosines order the pairs best."""

    best_metric = "spearman"
    greater_is_better = True

    def drawn_score(
        self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str]
    ) -> Callable[[np.ndarray], float]:
        """Return Spearman's correlation of drawn rows; see `Scorer.drawn_score`."""
        from scipy.stats import spearmanr

        truth = np.array([float(cell) for cell in rows["label"]])
        cosines = np.array([row.similarity() for row in predictions])

        def correlation(places: np.ndarray) -> float:
            is_constant = min(len(set(truth[places])), len(set(cosines[places]))) < 2
            return 0.0 if is_constant else float(spearmanr(truth[places], cosines[places])[0])

        return correlation

    def metrics(
        self, predictions: Sequence[Any], rows: RowColumns, label_names: Sequence[str], loss: float
    ) -> dict[str, float]:
        """Compute Spearman's and Pearson's correlation of cosines and scores; `loss` is not used."""
        from scipy.stats import pearsonr, spearmanr

        truth = np.array([float(cell) for cell in rows["label"]])
        cosines = np.array([row.similarity() for row in predictions])
        is_constant = len(set(truth.tolist())) < 2 or len(set(cosines.tolist())) < 2  # a correlation is not defined
        return {
            "loss": self.split_loss(predictions, rows),
            "spearman": 0.0 if is_constant else float(spearmanr(truth, cosines)[0]),
            "pearson": 0.0 if is_constant else float(pearsonr(truth, cosines)[0]),
        }


@dataclass(frozen=True)
class Asked:
    """The distinct queries and passages of a split.

    Attributes:
        questions: The queries.
        queries: Their vectors, (queries, dimensions) float32.
        relevant: Places of the passages that answer each query.
        passages: The passages: those that answer a query, and hard negatives.
        corpus: Their vectors, (passages, dimensions) float32.
    """

    questions: list[str]
    queries: np.ndarray
    relevant: list[set[int]]
    passages: list[str]
    corpus: np.ndarray


def asked_in(embedded: Sequence[Embedded], columns: RowColumns) -> Asked:
    """Collect the queries and the passages of a split; columns: its rows."""
    corpus, relevant = dict[str, np.ndarray](), dict[str, set[str]]()
    for place, row in enumerate(embedded):
        passages = list(_passages(columns, place))
        relevant.setdefault(columns["question"][place], set()).update(passages)
        for passage, vectors in zip(passages, row.vectors, strict=True):
            corpus.setdefault(passage, vectors[1])
        for negative, vector in zip(_negatives(columns, place), row.vectors[0][2:], strict=True):
            corpus.setdefault(negative, vector)
    places = {name: place for place, name in enumerate(corpus)}
    asked = list(relevant)
    queries = {question: row.vectors[0][0] for question, row in zip(columns["question"], embedded, strict=True)}
    return Asked(
        asked, np.stack([queries[question] for question in asked]),
        [{places[name] for name in relevant[question]} for question in asked], list(corpus),
        np.stack(list(corpus.values())),
    )  # fmt: skip


def with_hits(
    embedded: Sequence[Embedded], questions: Sequence[str], asked: Asked, hits: Sequence[Hits], names: Mapping[int, str]
) -> list[Embedded]:
    """Return rows with what a search found for their queries.

    Args:
        embedded: The rows.
        questions: The query of each.
        asked: The distinct queries.
        hits: What was found for each of these.
        names: The texts of passages by their place, at least of those that are shown.

    Returns:
        The rows.
    """
    found = dict(zip(asked.questions, hits, strict=True))
    return [
        dataclasses.replace(row, hits=found[question], nearest=_nearest(found[question], names))
        for row, question in zip(embedded, questions, strict=True)
    ]


def _passages(rows: RowColumns, place: int) -> Iterator[str]:
    """Yield the passages that answer a row's query."""
    yield rows["context"][place]
    if "positives" in rows:
        yield from json.loads(rows["positives"][place])


def _negatives(rows: RowColumns, place: int) -> list[str]:
    found: list[str] = json.loads(rows["negatives"][place]) if "negatives" in rows else []
    return found


def _texts_of(rows: RowColumns, place: int, known: dict[str, int]) -> list[list[int]]:
    """Return, of each example of a row, a number for each of its texts that is the same for the same text."""
    negatives = _negatives(rows, place)
    return [
        [known.setdefault(text, len(known)) for text in (rows["question"][place], passage, *negatives)]
        for passage in _passages(rows, place)
    ]


def _nearest(hits: Hits, names: Mapping[int, str]) -> tuple[tuple[str, float], ...]:
    pairs = list(zip(hits.places, hits.scores, strict=True))[:NEAREST]
    return tuple((names[place], score) for place, score in pairs)
