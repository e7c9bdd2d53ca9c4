"""The rows and the scores of a split as lists of passages, one for each query."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetuning.tasks.parts import RowColumns
from finetuning.tasks.ranking import hit, ndcg, ranks_of, reciprocal_rank

_SEED = 0


@dataclass(frozen=True)
class Ranked:
    """The passages of one query.

    Attributes:
        labels: How relevant each is, (passages,).
        scores: The score of each, (passages,).
    """

    labels: np.ndarray
    scores: np.ndarray

    def has_both(self) -> bool:
        """Return whether a passage is relevant and one is not, so that their order says something."""
        return bool((self.labels > 0).any() and (self.labels <= 0).any())

    def ranks(self) -> np.ndarray:
        """Return the rank of each passage, from 1."""
        return ranks_of(self.scores, self.labels)

    def gain(self) -> float:
        """Return nDCG@10."""
        return ndcg(self.ranks(), self.labels)

    def reciprocal_rank(self) -> float:
        """Return the reciprocal rank of the best relevant passage among the first 10."""
        return reciprocal_rank(self.ranks()[self.labels > 0])

    def is_right(self) -> float:
        """Return 1 where the first passage is relevant, else 0."""
        return hit(self.ranks()[self.labels > 0])


def by_row(predictions: Sequence[Any], rows: RowColumns) -> Iterator[Ranked]:
    """Yield the passages of each row.

    Args:
        predictions: Scores of each row's passages; an empty one stands for scores drawn at random.
        rows: Columns of the split by role, with labels.

    Yields:
        Labels and scores, in the order of the rows.
    """
    random = np.random.default_rng(_SEED)
    cells = rows["labels"] if "labels" in rows else rows["label"]
    for cell, scores in zip(cells, predictions, strict=True):
        labels = np.array(json.loads(cell) if "labels" in rows else [float(cell)], dtype=np.float64)
        found = np.array(scores, dtype=np.float64) if len(scores) else random.random(len(labels))
        yield Ranked(labels, found)


def by_query(predictions: Sequence[Any], rows: RowColumns) -> list[Ranked]:
    """Return the passages of each query that has one that is relevant and one that is not.

    A row with several passages is a list of its own; single pairs are of one list where they have the same query.

    Args:
        predictions: As of `by_row`.
        rows: As of `by_row`.

    Returns:
        The lists; those with a negative label, which has no gain, are left out.
    """
    found = by_row(predictions, rows)
    if "passages" not in rows:
        pairs: dict[str, list[Ranked]] = {}
        for query, one in zip(rows["question"], found, strict=True):
            pairs.setdefault(query, []).append(one)
        found = (
            Ranked(np.concatenate([one.labels for one in own]), np.concatenate([one.scores for one in own]))
            for own in pairs.values()
        )
    return [one for one in found if one.has_both() and one.labels.min() >= 0]
