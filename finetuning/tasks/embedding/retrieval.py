"""Search in a corpus of vectors, and the field's metrics of what it finds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

DEPTH = 10  # passages that are looked at for a query
_RECALLS = (1, 5, 10)
_SCORES_AT_A_TIME = 1 << 24  # of a block of queries with the whole corpus: 64 MiB in float32


@dataclass(frozen=True)
class Hits:
    """What a search found for one query.

    Attributes:
        places: Places of the nearest passages in the corpus, nearest first.
        scores: Their similarity to the query.
        relevant: Places of the passages that answer it.
    """

    places: tuple[int, ...]
    scores: tuple[float, ...]
    relevant: frozenset[int]

    def ranks(self) -> list[int]:
        """Return the ranks of relevant passages among those that were found, from 0."""
        return [rank for rank, place in enumerate(self.places) if place in self.relevant]

    def recall(self, depth: int) -> float:
        """Return the share of the relevant passages that are among the first `depth`."""
        return sum(rank < depth for rank in self.ranks()) / len(self.relevant)

    def reciprocal_rank(self) -> float:
        """Return one over the place of the first relevant passage, counted from 1; 0 if none was found."""
        ranks = self.ranks()
        return 1 / (ranks[0] + 1) if ranks else 0.0

    def gain(self) -> float:
        """Return nDCG: the discounted gain of the relevant passages by that of the best order."""
        best = sum(_discount(rank) for rank in range(min(len(self.relevant), DEPTH)))
        return sum(map(_discount, self.ranks())) / best


def _discount(rank: int) -> float:
    return 1 / math.log2(rank + 2)


def search(queries: np.ndarray, corpus: np.ndarray, relevant: Sequence[Set[int]], depth: int = DEPTH) -> list[Hits]:
    """Find the passages nearest to each query, and mark those that answer it.

    Args:
        queries: (queries, dimensions) float32.
        corpus: (passages, dimensions) float32.
        relevant: Places of the passages that answer each query.
        depth: How many passages are found for a query.

    Returns:
        What was found for each query.
    """
    return search_in_blocks(queries, [corpus], relevant, depth)


def search_in_blocks(
    queries: np.ndarray, blocks: Iterable[np.ndarray], relevant: Sequence[Set[int]], depth: int = DEPTH
) -> list[Hits]:
    """Search a corpus that comes in blocks, of which one is held at a time; see `search`.

    Args:
        queries: (queries, dimensions) float32.
        blocks: Vectors of the passages, (passages of the block, dimensions) float32 each.
        relevant: Places in the whole corpus of the passages that answer each query.
        depth: How many passages are found for a query.

    Returns:
        What was found for each query.
    """
    found: list[list[tuple[float, int]]] = [[] for _ in relevant]  # scores and places, the best first
    start = 0
    for block in blocks:
        for best, (places, scores) in zip(found, nearest(queries, block, depth), strict=True):
            best += [(score, start + place) for place, score in zip(places, scores, strict=True)]
            best.sort(key=lambda one: -one[0])  # stable: of equal passages the first is nearer
            del best[depth:]
        start += len(block)
    return [
        Hits(tuple(place for _, place in best), tuple(score for score, _ in best), frozenset(own))
        for own, best in zip(relevant, found, strict=True)
    ]


def nearest(queries: np.ndarray, corpus: np.ndarray, depth: int) -> Iterator[tuple[tuple[int, ...], tuple[float, ...]]]:
    """Find the passages nearest to each query by the product of their vectors.

    Args:
        queries: (queries, dimensions) float32.
        corpus: (passages, dimensions) float32.
        depth: How many passages are found for a query.

    Yields:
        The places of a query's passages and their products, nearest first.
    """
    for _, scores in score_blocks(queries, corpus):
        found = scores.topk(min(depth, len(corpus)), dim=1)
        for places, values in zip(found.indices.tolist(), found.values.tolist(), strict=True):
            yield tuple(places), tuple(values)


def score_blocks(queries: np.ndarray, corpus: np.ndarray) -> Iterator[tuple[range, torch.Tensor]]:
    """Multiply queries with a whole corpus, as many at a time as take 64 MiB.

    Args:
        queries: (queries, dimensions) float32.
        corpus: (passages, dimensions) float32.

    Yields:
        Places of a block of queries, and its products, (queries, passages) float32.
    """
    import torch

    passages, size = torch.from_numpy(corpus).T, max(1, _SCORES_AT_A_TIME // max(1, len(corpus)))
    for start in range(0, len(queries), size):
        block = range(start, min(start + size, len(queries)))
        yield block, torch.from_numpy(queries[block.start : block.stop]) @ passages


def metrics_of(hits: Sequence[Hits]) -> Mapping[str, float]:
    """Return recall, MRR and nDCG, each a mean over the queries."""
    count = max(1, len(hits))
    recalls = {f"recall_at_{depth}": sum(one.recall(depth) for one in hits) / count for depth in _RECALLS}
    return {
        **recalls,
        f"mrr_at_{DEPTH}": sum(one.reciprocal_rank() for one in hits) / count,
        f"ndcg_at_{DEPTH}": sum(one.gain() for one in hits) / count,
    }
