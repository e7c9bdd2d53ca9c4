"""Metrics of rankings, from scores to ranks to numbers: reciprocal rank, recall, hits and nDCG of one query each.

The mean over queries is the caller's. A tie counts against a ranking: among equal scores the least relevant item comes
first, so that a model that scores all alike is not praised for the order in which the data happen to be.
"""

from __future__ import annotations

import numpy as np


def ranks_of(scores: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Rank the items of one query.

    Args:
        scores: Score of each item, (items,). NaN ranks last.
        gains: Relevance of each item, (items,); it decides among equal scores only.

    Returns:
        Rank of each item from 1, (items,) int64.
    """
    ranks = np.empty(len(scores), dtype=np.int64)
    ranks[np.lexsort((gains, -np.asarray(scores)))] = np.arange(1, len(scores) + 1)
    return ranks


def reciprocal_rank(ranks: np.ndarray, k: int = 10) -> float:
    """Return 1 / rank of the best ranked relevant item, or 0 where it is not among the first k.

    Args:
        ranks: Ranks of the relevant items, (relevant,); those that were not found may be left out.
        k: Number of items that count.

    Returns:
        The value, 0 to 1.
    """
    best = min(ranks.tolist(), default=k + 1)
    return 1 / best if best <= k else 0.0


def recall(ranks: np.ndarray, relevant: int, k: int) -> float:
    """Return the share of a query's relevant items that are among the first k.

    Args:
        ranks: As of `reciprocal_rank`.
        relevant: Number of relevant items, found or not; 1 or more.
        k: Number of items that count.

    Returns:
        The value, 0 to 1.
    """
    return float(np.count_nonzero(ranks <= k)) / relevant


def hit(ranks: np.ndarray, k: int = 1) -> float:
    """Return 1 where a relevant item is among the first k, else 0; ranks: as of `reciprocal_rank`."""
    return float(np.any(ranks <= k))


def ndcg(ranks: np.ndarray, gains: np.ndarray, ideal: np.ndarray | None = None, k: int = 10) -> float:
    """Return the discounted gain of the first k items over that of the best order (Järvelin and Kekäläinen 2002).

    The gain is the relevance itself, as in scikit-learn, trec_eval and MTEB, not 2 to its power.

    Args:
        ranks: Ranks of items, (items,); items without gain may be left out.
        gains: Their relevance, (items,), 0 or more.
        ideal: Relevance of all items of the query, (relevant,); None where `gains` has them all.
        k: Number of items that count.

    Returns:
        The value, 0 to 1; 0 for a query without relevant items.
    """
    best = np.sort(gains if ideal is None else ideal)[::-1][:k]
    most = float((best / np.log2(np.arange(2, len(best) + 2))).sum())
    counts = ranks <= k
    found = float((gains[counts] / np.log2(ranks[counts] + 1)).sum())
    return found / most if most > 0 else 0.0
