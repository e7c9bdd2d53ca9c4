"""Which rows of a split are held out of train: a seeded share, of every label the same, or of whole groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

_ROWS_A_LABEL = 10  # with fewer, on the average, there is nothing to stratify by


def hold_out_rows(labels: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
    """Positions of a share of the rows, the same share of every label (a code for each row) where rows share labels."""
    kinds = np.unique(labels)
    if len(kinds) * _ROWS_A_LABEL > len(labels):
        labels, kinds = np.zeros(len(labels), dtype=np.int32), np.zeros(1, dtype=np.int32)
    held = [np.empty(0, dtype=np.int64)]
    for label in kinds:
        positions = random.permutation(np.flatnonzero(labels == label))
        held.append(positions[: round(share * len(positions))])
    return np.concatenate(held)


def leaving_every_label(
    codes: np.ndarray, cells: Sequence[str], held: np.ndarray, labels_in: Callable[[str], Sequence[str]]
) -> np.ndarray:
    """The held positions without those that would leave train no row of a label; codes: each row's place in cells."""
    labels = [labels_in(cell) for cell in cells]
    left = Counter[str]()
    for own, count in zip(labels, np.bincount(codes, minlength=len(cells)).tolist(), strict=True):
        for label in own:
            left[label] += count
    is_kept = np.ones(len(held), dtype=bool)
    for number, code in enumerate(codes[held].tolist()):
        is_kept[number] = all(left[label] > 1 for label in labels[code])
        if is_kept[number]:
            left.subtract(labels[code])
    return held[is_kept]


def hold_out_groups(groups: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
    """Positions of whole groups (a code for each row), at random, nearest to a share of the rows; one group is left."""
    sizes = np.bincount(groups)
    order = random.permutation(len(sizes))
    distance = np.abs(np.cumsum(sizes[order]) - share * len(groups))[:-1]
    chosen = order[: int(distance.argmin()) + 1] if len(distance) else order[:0]
    return np.flatnonzero(np.isin(groups, chosen))
