"""Precision, recall and F1 over entities in IOB2 tags, with the figures of seqeval's strict mode."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class EntityScore:
    """Scores of one kind of entity, or an average over kinds. A quotient by 0 is 0.

    Attributes:
        precision: Share of the predicted entities that are true.
        recall: Share of the true entities that are predicted.
        f1: Harmonic mean of both. In a macro average the mean of the kinds' F1.
        support: Number of true entities.
        predicted: Number of predicted entities.
    """

    precision: float
    recall: float
    f1: float
    support: int
    predicted: int


def entity_scores(truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, EntityScore]:
    """Score each kind of entity. An entity counts as found if its kind, its start and its end are the same.

    Args:
        truth: IOB2 tags of each sequence.
        predicted: Predicted tags of the same sequences. An I- that continues no entity of its kind is ignored.

    Returns:
        Scores of every kind that occurs on either side, sorted by name.
    """
    wanted, found = _entities(truth), _entities(predicted)
    counts = [Counter(kind for *_, kind in entities) for entities in (wanted, found, wanted & found)]
    return {kind: _score(*(count[kind] for count in counts)) for kind in sorted(counts[0] | counts[1])}


def micro_average(truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> EntityScore:
    """Score all entities together, whatever their kind; see `entity_scores` for the arguments."""
    wanted, found = _entities(truth), _entities(predicted)
    return _score(len(wanted), len(found), len(wanted & found))


def entity_counts(truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> np.ndarray:
    """Count each sequence's entities, which add up over sequences.

    Args:
        truth: IOB2 tags of each sequence.
        predicted: Predicted tags of the same sequences.

    Returns:
        True, predicted and found entities of every kind that occurs, (sequences, kinds, 3) int64.
    """
    wanted, found = _entities(truth), _entities(predicted)
    kinds = {kind: place for place, kind in enumerate(sorted({kind for *_, kind in wanted | found}))}
    counts = np.zeros((len(truth), len(kinds), 3), np.int64)
    for place, entities in enumerate((wanted, found, wanted & found)):
        for number, *_, kind in entities:
            counts[number, kinds[kind], place] += 1
    return counts


def macro_f1(counts: np.ndarray) -> float:
    """Return the mean F1 of the kinds that occur in (kinds, 3) counts of `entity_counts`; 0 if none does."""
    occurring = counts[counts.any(1)]
    return macro_average([_score(*(int(count) for count in kind)) for kind in occurring]).f1


def macro_average(scores: Sequence[EntityScore]) -> EntityScore:
    """Return the unweighted mean of the kinds' scores, 0 if there are none."""
    count = max(1, len(scores))
    return EntityScore(
        sum(score.precision for score in scores) / count,
        sum(score.recall for score in scores) / count,
        sum(score.f1 for score in scores) / count,
        sum(score.support for score in scores),
        sum(score.predicted for score in scores),
    )


def _score(wanted: int, found: int, both: int) -> EntityScore:
    precision, recall = both / found if found else 0.0, both / wanted if wanted else 0.0
    f1 = 2 * precision * recall / (precision + recall) if both else 0.0
    return EntityScore(precision, recall, f1, wanted, found)


def _entities(sequences: Sequence[Sequence[str]]) -> set[tuple[int, int, int, str]]:
    """Return (sequence, start, end, kind) of each entity: a B- and the I- of the same kind after it."""
    found = set()
    for number, tags in enumerate(sequences):
        start, kind = 0, ""
        for position, tag in enumerate([*tags, "O"]):
            prefix, _, own = tag.partition("-")
            if kind and (prefix, own) != ("I", kind):
                found.add((number, start, position, kind))
                kind = ""
            if prefix == "B":
                start, kind = position, own
    return found
