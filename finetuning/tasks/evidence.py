"""What a task shows of an evaluation beside its metrics: blocks of typed facts, a ranking of rows, and single rows.

The report page draws these types and knows no task; `metrics-*.json` and errors.csv are written from them, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np


@dataclass(frozen=True)
class Confusion:
    """How often each label was predicted for each true label.

    Attributes:
        labels: Labels in the order of their ids.
        counts: Number of rows, (true labels, predicted labels) int64.
    """

    labels: tuple[str, ...]
    counts: np.ndarray

    def by_name(self) -> dict[str, dict[str, int]]:
        """Return true label → predicted label → number of rows, without zeros."""
        return {
            truth: {self.labels[place]: int(row[place]) for place in np.flatnonzero(row)}
            for truth, row in zip(self.labels, self.counts, strict=True)
        }


@dataclass(frozen=True)
class LabelScore:
    """Scores of one label or kind. A quotient by 0 is 0.

    Attributes:
        label: Its name.
        precision: Share of its predictions that are right.
        recall: Share of its true occurrences that are found.
        f1: Harmonic mean of both.
        support: Number of true occurrences.
        predicted: Number of predictions.
    """

    label: str
    precision: float
    recall: float
    f1: float
    support: int
    predicted: int


@dataclass(frozen=True)
class LabelScores:
    """Scores of every label, in the order of their ids."""

    scores: tuple[LabelScore, ...]


@dataclass(frozen=True)
class Distribution:
    """How values are distributed in one group of rows or more.

    Attributes:
        title: What the figure shows, in Korean.
        axis: What the values are.
        groups: Values by the group's name.
    """

    title: str
    axis: str
    groups: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Scatter:
    """True and predicted numbers, one pair a row."""

    truth: np.ndarray
    predicted: np.ndarray


Block = Confusion | LabelScores | Distribution | Scatter


@dataclass(frozen=True)
class Ranking:
    """Rows to look at, the worst first.

    Attributes:
        title: What the list shows, in Korean.
        wrong_are: What the wrong rows are called, ending in `행`; "" where that is nothing to count.
        measure: Name of the value that the rows are sorted by.
        positions: Positions of the rows in the split, int64.
        values: The value of each.
        wrong: How many of them, from the first, are wrong: those that errors.csv has.
    """

    title: str
    wrong_are: str
    measure: str
    positions: np.ndarray
    values: np.ndarray
    wrong: int


def ranked_wrong(
    title: str, measure: str, values: np.ndarray, wrong: np.ndarray, wrong_are: str = "틀린 행"
) -> Ranking:
    """Rank the wrong rows of a split, the largest value first.

    Args:
        title: As of `Ranking`.
        measure: As of `Ranking`.
        values: A value of every row, (rows,).
        wrong: Whether a row is wrong, (rows,) bool.
        wrong_are: As of `Ranking`.

    Returns:
        The ranking; rows of one value are in the order of the split.
    """
    places = np.flatnonzero(wrong)
    positions = places[np.argsort(-values[places], kind="stable")]
    return Ranking(title, wrong_are, measure, positions, values[positions], len(positions))


@dataclass(frozen=True)
class Evidence:
    """What a task shows of an evaluation.

    Attributes:
        blocks: Facts over the whole split.
        ranking: Rows to look at, None for a task whose rows are neither right nor wrong.
    """

    blocks: tuple[Block, ...] = ()
    ranking: Ranking | None = None

    def facts(self) -> dict[str, Any]:
        """Return the confusion matrix and the scores by label as JSON values, where the task has them."""
        found: dict[str, Any] = {}
        for block in self.blocks:
            if isinstance(block, LabelScores):
                found["by_label"] = {
                    one.label: {
                        "precision": one.precision, "recall": one.recall, "f1": one.f1,
                        "support": one.support, "predicted": one.predicted,
                    }
                    for one in block.scores
                }  # fmt: skip
            if isinstance(block, Confusion):
                found["confusion"] = block.by_name()
        return found


@dataclass(frozen=True)
class Mark:
    """A part of a text that is shown in colour.

    Attributes:
        start: Its first character.
        end: The character after its last one.
        label: What it is called.
        kind: `truth`, `said`, or `label`: then the label itself has a colour.
    """

    start: int
    end: int
    label: str
    kind: Literal["truth", "said", "label"]


@dataclass(frozen=True)
class Part:
    """One text of a row as it is shown.

    Attributes:
        name: What it is: `텍스트`, `정답`, `예측`.
        text: The text.
        marks: Parts of it that are shown in colour.
    """

    name: str
    text: str
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class Case:
    """A row with its right answer and its prediction."""

    parts: tuple[Part, ...]
