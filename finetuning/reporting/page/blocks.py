"""A task's blocks as the page lays them out: matrices of cells, pairs of labels, texts cut at their marks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from finetuning.tasks.evidence import Confusion, LabelScore, LabelScores, Part

MOST_IN_MATRIX = 25
_MOST_PAIRS, _MOST_LABELS = 15, 200
_MOST_CHARACTERS, _AROUND_MARKS = 600, 150


@dataclass(frozen=True)
class Piece:
    """A piece of a text under the same marks.

    Attributes:
        text: The piece.
        classes: Names of its marks' styles, separated by spaces; "" without a mark.
        label: What it is called, shown after it; "" within a mark and without one.
    """

    text: str
    classes: str = ""
    label: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell of a confusion matrix; share: of the true label's rows, 0 to 1."""

    predicted: str
    count: int
    share: float


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix: a row for each true label."""

    labels: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


@dataclass(frozen=True)
class Pair:
    """A true label and what was predicted in its place."""

    truth: str
    predicted: str
    count: int
    share: float


def smaller(block: Confusion) -> Confusion:
    """Return a matrix of at most 25 labels: those that are most often taken for another, in their own order."""
    if len(block.labels) <= MOST_IN_MATRIX:
        return block
    counts = block.counts
    wrong = counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()
    kept = sorted((-wrong).argsort(kind="stable")[:MOST_IN_MATRIX].tolist())
    return Confusion(tuple(block.labels[place] for place in kept), counts[kept][:, kept])


def matrix_of(block: Confusion) -> Matrix:
    """Return a confusion matrix as rows of cells, with shares of the whole matrix's rows."""
    shown = smaller(block)
    totals = dict(zip(block.labels, block.counts.sum(1).tolist(), strict=True))
    rows = []
    for truth, counts in zip(shown.labels, shown.counts.tolist(), strict=True):
        total = max(1, totals[truth])
        cells = tuple(Cell(label, count, count / total) for label, count in zip(shown.labels, counts, strict=True))
        rows.append((truth, cells))
    return Matrix(shown.labels, tuple(rows))


def confused_pairs(block: Confusion) -> list[Pair]:
    """Return the pairs of labels that are most often confused."""
    counts = block.counts.copy()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    np.fill_diagonal(counts, 0)
    order = (-counts).ravel().argsort(kind="stable")[:_MOST_PAIRS]
    places = [divmod(int(place), len(counts)) for place in order]
    return [
        Pair(block.labels[row], block.labels[column], int(counts[row, column]), float(shares[row, column]))
        for row, column in places
        if counts[row, column]
    ]


def label_table(block: LabelScores) -> tuple[LabelScore, ...]:
    """Return the scores of at most 200 labels, the lowest F1 first where there are more."""
    if len(block.scores) <= _MOST_LABELS:
        return block.scores
    return tuple(sorted(block.scores, key=lambda one: (one.f1, -one.support))[:_MOST_LABELS])


def pieces_of(part: Part, labels: Sequence[str]) -> Iterator[Piece]:
    """Divide a text at its marks; a long one is cut around them.

    Args:
        part: The text with its marks.
        labels: The labels of the page; a label's colour goes by its place among them.

    Yields:
        The pieces, with `…` where the text was cut.
    """
    first = min((mark.start for mark in part.marks), default=0)
    start = max(0, first - _AROUND_MARKS) if len(part.text) > _MOST_CHARACTERS else 0
    last = max((mark.end for mark in part.marks), default=0)  # what was said may be far from the truth
    end = min(len(part.text), max(start + _MOST_CHARACTERS, min(last + _AROUND_MARKS, start + 3 * _MOST_CHARACTERS)))
    if start:
        yield Piece("…")
    inside = (edge for mark in part.marks for edge in (mark.start, mark.end) if start < edge < end)
    edges = sorted({start, end, *inside})
    for low, high in pairwise(edges):
        marks = [mark for mark in part.marks if mark.start <= low and high <= mark.end]
        ending = [mark.label for mark in marks if mark.end == high and mark.kind == "label"]
        yield Piece(part.text[low:high], " ".join(_style(mark.kind, mark.label, labels) for mark in marks), *ending[:1])
    if end < len(part.text):
        yield Piece(f"… (뒤의 {len(part.text) - end:,}자 생략)")


def _style(kind: str, label: str, labels: Sequence[str]) -> str:
    return f"k{labels.index(label) % 10}" if kind == "label" and label in labels else kind
