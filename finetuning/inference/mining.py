"""Hard negatives: passages that a search finds near a query, and that do not answer it.

A passage that answers a query though nobody marked it (a false negative) is the likeliest to be found. So a passage
counts as a negative only if its similarity to the query is below that of the query's passage by a share of it: TopK-
PercPos of NV-Retriever (Moreira et al. 2024), which found 95% (a margin of 0.05) best; where a query has several
passages, the most similar counts, as in sentence-transformers' `mine_hard_negatives`. A copy of a passage of the query,
but for white space and case, is never a negative.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from finetuning.tasks.embedding.retrieval import score_blocks

Ranking = Callable[[range], np.ndarray]  # places of queries → how well each passage ranks, (queries, passages)


@dataclass(frozen=True)
class Rule:
    """What counts as a negative.

    Attributes:
        count: Most negatives of a query.
        margin: Share of a passage's similarity by which a negative is less similar.
    """

    count: int
    margin: float


@dataclass
class Tally:
    """What mining found, in numbers.

    Attributes:
        queries: Queries.
        full: Queries with as many negatives as were asked for.
        none: Queries without any.
        too_near: Passages that would have been among the nearest, and were left out by the margin.
    """

    queries: int = 0
    full: int = 0
    none: int = 0
    too_near: int = 0


def mined(
    queries: np.ndarray, corpus: np.ndarray, texts: Sequence[str], right: Sequence[Sequence[int]],
    rankings: Sequence[Ranking | None], rule: Rule, tally: Tally,
) -> Iterator[list[int]]:  # fmt: skip
    """Find the negatives of each query.

    Args:
        queries: Vectors of the queries, (queries, dimensions) float32.
        corpus: Vectors of the passages, (passages, dimensions) float32.
        texts: The passages.
        right: Places of the passages that answer each query, one or more.
        rankings: By what passages are ranked; None for the similarity of the vectors. Of several, each gives its best
            in turn.
        rule: What counts as a negative.
        tally: Counts, added to.

    Yields:
        Places of the negatives of a query, the best first.
    """
    copies = _copies(texts)
    for block, products in score_blocks(queries, corpus):
        similar = products.numpy()
        nearest = np.array([similar[row, list(right[place])].max() for row, place in enumerate(block)])
        allowed = similar < (nearest - np.abs(nearest) * rule.margin)[:, None]
        hidden = np.zeros_like(allowed)
        for row, place in enumerate(block):
            hidden[row, [copy for own in right[place] for copy in copies[own]]] = True
        found = [
            _best(np.where(hidden, -np.inf, similar if rank is None else rank(block)), allowed, rule.count, tally)
            for rank in rankings
        ]
        for row in range(len(block)):
            taken = _in_turn([one[row] for one in found])[: rule.count]
            tally.queries += 1
            tally.full += len(taken) == rule.count
            tally.none += not taken
            yield taken


def _best(scores: np.ndarray, allowed: np.ndarray, count: int, tally: Tally) -> list[list[int]]:
    """Return the places of the best allowed passages of each row; a passage with -inf is none at all."""
    kept = np.where(allowed, scores, -np.inf)
    rows = []
    for row, own in enumerate(kept):
        places = np.argsort(-own, kind="stable")[:count] if count >= len(own) else _largest(own, count)
        taken = [int(place) for place in places if own[place] > -np.inf]
        least = own[taken[-1]] if len(taken) == count else -np.inf
        tally.too_near += int(np.count_nonzero((scores[row] > least) & ~allowed[row]))
        rows.append(taken)
    return rows


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Return the places of the largest values, largest first; among equal ones the first."""
    least = np.partition(values, -count)[-count]
    places = np.flatnonzero(values >= least)
    found: np.ndarray = places[np.argsort(-values[places], kind="stable")][:count]
    return found


def _in_turn(lists: Sequence[Sequence[int]]) -> list[int]:
    """Return the items of several lists, the first of each, then the second of each, without repeating any."""
    longest = max(map(len, lists), default=0)
    return list(dict.fromkeys(one[place] for place in range(longest) for one in lists if place < len(one)))


def _copies(texts: Sequence[str]) -> list[list[int]]:
    """Return, for each text, the places of all texts that are it but for white space and case."""
    groups: dict[str, list[int]] = {}
    keys = ["".join(text.split()).casefold() for text in texts]
    for place, key in enumerate(keys):
        groups.setdefault(key, []).append(place)
    return [groups[key] for key in keys]
