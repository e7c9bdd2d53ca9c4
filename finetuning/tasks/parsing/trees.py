"""Dependency trees as labels of words: how far to the right the head stands, and the relation to it.

In a Korean sentence heads stand to the right, and the last word is the root. All 22,496 words of KLUE-DP's dev set do,
so that labels of words make a tree without a search: no head to the right can close a cycle.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

ROOT = 0  # head of the root, and its distance
_BAR = "|"


class Arc(NamedTuple):
    """A word's place in its tree.

    Attributes:
        head: Number of its head in the sentence, from 1; 0 for the root.
        relation: The relation to it.
        score: Probability of both.
    """

    head: int
    relation: str
    score: float = 1.0


def label_of(number: int, arc: Arc) -> str:
    """Return the label of a word.

    Args:
        number: The word's number in its sentence, from 1.
        arc: Its head and relation.

    Returns:
        Distance and relation such as `2|NP_SBJ`; 0 is the root, a negative distance a head to the left.
    """
    return f"{arc.head - number if arc.head != ROOT else ROOT}{_BAR}{arc.relation}"


def distance_and_relation(label: str) -> tuple[int, str]:
    """Return the parts of a label of `label_of`."""
    distance, _, relation = label.partition(_BAR)
    return int(distance), relation


def arcs_in(cell: str) -> list[Arc]:
    """Return the arcs of a row's `label` cell, [[head, relation], ...] as JSON."""
    return [Arc(*arc) for arc in json.loads(cell)]


def likeliest_tree(scores: np.ndarray, labels: Sequence[tuple[int, str]]) -> list[Arc]:
    """Choose each word's likeliest label of those that make a tree.

    The last word is the root, and every other word has its head to the right, within the sentence.

    Args:
        scores: Log-probabilities, (words, labels) float32.
        labels: Distance and relation of each label.

    Returns:
        The arc of each word. Where the labels have no such distance, the head is the next word.
    """
    count = len(scores)
    distances = np.array([distance for distance, _ in labels])
    to_the_right = np.arange(count - 1, -1, -1)[:, None]  # words after each word
    fits = np.where(to_the_right == 0, distances == ROOT, (distances > ROOT) & (distances <= to_the_right))
    chosen = np.where(fits, scores, -np.inf).argmax(-1).tolist()
    found = []
    for place, label in enumerate(chosen):
        distance = int(distances[label]) if fits[place, label] else min(1, count - 1 - place)
        head = place + 1 + distance if distance else ROOT
        found.append(Arc(head, labels[label][1], float(np.exp(scores[place, label]))))
    return found


@dataclass(frozen=True)
class NextWord:
    """What is had without training: every word's head is the next one, and the last word is the root.

    Attributes:
        relation: The commonest relation to the next word.
        of_root: That of a root.
    """

    relation: str
    of_root: str

    def arcs(self, count: int) -> list[Arc]:
        """Return the arcs of a sentence of so many words."""
        return [*(Arc(number + 1, self.relation) for number in range(1, count)), Arc(ROOT, self.of_root)]


def arcs_of(prediction: Sequence[Arc] | NextWord, count: int) -> Sequence[Arc]:
    """Return the arcs that a prediction means for a sentence of so many words."""
    return prediction.arcs(count) if isinstance(prediction, NextWord) else prediction
