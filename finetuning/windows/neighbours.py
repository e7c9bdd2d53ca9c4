"""Order examples so that similar ones stand together: under a contrastive loss they are each other's hard negatives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from finetuning.data.table import list_items, list_lengths

if TYPE_CHECKING:
    from datasets import Dataset
    from scipy.sparse import csr_matrix


_AT_ONCE = 2048  # examples that are compared with each other: a matrix of 16 MiB


def with_neighbours(order: np.ndarray, table: Dataset, size: int, random: np.random.Generator) -> np.ndarray:
    """Regroup an order into groups of similar examples, the groups in random order.

    Examples are similar that have tokens in common which few examples have (TF-IDF): this takes no model, so a resumed
    run has the same groups. Each example that has no group yet, in the order's turn, takes the nearest that have none.
    Of many examples those are compared that are on one side of random hyperplanes. So each epoch has groups of its own.

    Args:
        order: Positions of examples, int64.
        table: The examples.
        size: Examples of a group.
        random: What hyperplanes and the order of the groups are drawn from.

    Returns:
        The same positions. One group may be smaller; it stands last.
    """
    vectors = _vectors(table)
    groups = [group for part in _parts(order, vectors, size, random) for group in _groups(part, vectors, size)]
    groups = [groups[place] for place in random.permutation(len(groups))]
    regrouped: np.ndarray = np.concatenate(sorted(groups, key=lambda group: len(group) < size))
    return regrouped


def _parts(order: np.ndarray, vectors: csr_matrix, size: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Halve examples by which of two random ones they are more like, until few enough are together.

    The first half has whole groups, and an example keeps its turn.
    """
    if len(order) <= max(_AT_ONCE, size):
        yield order
        return
    one, other = random.choice(order, 2, replace=False)
    likeness = (vectors[order] @ (vectors[one] - vectors[other]).T).toarray()[:, 0]
    middle = -(-len(order) // (2 * size)) * size
    for half in np.split(np.argsort(likeness, kind="stable"), [middle]):
        yield from _parts(order[np.sort(half)], vectors, size, random)


def _groups(part: np.ndarray, vectors: csr_matrix, size: int) -> Iterator[np.ndarray]:
    """Yield groups of similar examples; the last one may be smaller."""
    own = vectors[part]
    likeness, is_taken = (own @ own.T).toarray(), np.zeros(len(part), dtype=bool)
    for place in range(len(part)):
        if is_taken[place]:
            continue
        scores = np.where(is_taken, -np.inf, likeness[place])
        scores[place] = np.inf
        nearest = np.argsort(-scores, kind="stable")[: min(size, len(part) - int(is_taken.sum()))]
        is_taken[nearest] = True
        yield part[nearest]


def _vectors(table: Dataset) -> csr_matrix:
    """Return the tokens of each example, weighted by how few have them, of length 1, (examples, vocabulary)."""
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfTransformer

    tokens, ends = list_items(table, "input_ids"), list_lengths(table, "input_ids").astype(np.int64).cumsum()
    counts = csr_matrix((np.ones(len(tokens), dtype=np.float32), tokens, np.concatenate([[0], ends])))
    counts.sum_duplicates()
    return TfidfTransformer(sublinear_tf=True).fit_transform(counts)
