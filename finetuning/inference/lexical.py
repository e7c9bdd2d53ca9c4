"""BM25 (Robertson and Zaragoza 2009) over the morphemes of texts, as Lucene computes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_K1, _B = 1.2, 0.75  # Lucene's


class Lexical:
    """Ranks passages by the terms that they share with queries.

    Args:
        passages: The corpus.
        queries: The queries.
        terms: Text → its terms.
    """

    def __init__(self, passages: Sequence[str], queries: Sequence[str], terms: Callable[[str], list[str]]) -> None:
        from sklearn.feature_extraction.text import CountVectorizer

        counting = CountVectorizer(analyzer=terms, dtype=np.float32)
        self._weights = _weighted(counting.fit_transform(passages))
        self._queries = counting.transform(queries)

    def __call__(self, block: range) -> np.ndarray:
        """Return the scores of a block of queries, (queries, passages) float32; -inf without a common term."""
        found: np.ndarray = (self._queries[block.start : block.stop] @ self._weights.T).toarray()
        found[found <= 0] = -np.inf
        return found


def _weighted(counts: csr_matrix) -> csr_matrix:
    """Return the weight of each term in each passage; counts: how often it stands there, (passages, terms)."""
    passages = counts.shape[0]
    holding = np.bincount(counts.indices, minlength=counts.shape[1])
    rarity = np.log1p((passages - holding + 0.5) / (holding + 0.5))
    lengths = np.asarray(counts.sum(axis=1)).ravel()
    norm = _K1 * (1 - _B + _B * lengths / max(1.0, float(lengths.mean())))
    weights = counts.copy()
    of_row = np.repeat(np.arange(passages), np.diff(counts.indptr))
    weights.data = (rarity[counts.indices] * counts.data / (counts.data + norm[of_row])).astype(np.float32)
    return weights
