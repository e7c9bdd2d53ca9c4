"""Which rows of a split are held out of train: a seeded share, of every label the same, or of whole groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

_ROWS_A_LABEL = 10  # with fewer, on the average, there is nothing to stratify by


def hold_out_rows(cells: Sequence[str], share: float, random: np.random.Generator) -> list[int]:
    """Positions of a share of the rows, the same share of every label cell where rows share labels."""
    labels = np.array(cells)
    if len(np.unique(labels)) * _ROWS_A_LABEL > len(labels):
        labels[:] = ""
    held: list[int] = []
    for label in np.unique(labels):
        positions = random.permutation(np.flatnonzero(labels == label))
        held.extend(positions[: round(share * len(positions))].tolist())
    return held


def leaving_every_label(
    cells: Sequence[str], held: Sequence[int], labels_in: Callable[[str], Sequence[str]]
) -> list[int]:
    """The held positions without those that would leave train no row of a label."""
    left = Counter(label for cell in cells for label in labels_in(cell))
    still_held: list[int] = []
    for position in held:
        labels = labels_in(cells[position])
        if all(left[label] > 1 for label in labels):
            left.subtract(labels)
            still_held.append(position)
    return still_held


def hold_out_groups(groups: Sequence[str], share: float, random: np.random.Generator) -> list[int]:
    """Positions of whole groups, at random, that come nearest to a share of the rows; one group at least is left."""
    _, group_of, sizes = np.unique(np.array(groups, dtype=object), return_inverse=True, return_counts=True)
    order = random.permutation(len(sizes))
    distance = np.abs(np.cumsum(sizes[order]) - share * len(group_of))[:-1]
    chosen = order[: int(distance.argmin()) + 1] if len(distance) else order[:0]
    return np.flatnonzero(np.isin(group_of, chosen)).tolist()
