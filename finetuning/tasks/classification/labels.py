"""Labels: their order, and their number against `model.num_labels`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from exceptions import DataError
from finetuning.config.schema import Settings

if TYPE_CHECKING:
    import numpy as np


def label_order(name: str) -> tuple[int, float, str]:
    """Return a sort key: numbers by value, then words by spelling, so that labels 0, 1, 2 ... 10 are their own ids."""
    number = as_number(name)
    return (1, 0.0, name) if number is None else (0, number, name)


def as_number(text: str) -> float | None:
    """Return the finite number that a text spells, or None. `nan` and `inf` are words: they have no order."""
    try:
        number = float(text) if "_" not in text else math.nan  # Python reads 1_0 as 10
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def in_order(labels: Iterable[str], settings: Settings) -> tuple[str, ...]:
    """Return labels in the order of their ids.

    Args:
        labels: The distinct labels of train.
        settings: Their `model.num_labels` states how many there must be, if it is set.

    Returns:
        The labels, sorted by `label_order`.

    Raises:
        DataError: There are more or fewer labels than `model.num_labels`.
    """
    names, asked = tuple(sorted(labels, key=label_order)), settings.model.num_labels
    if asked not in (None, len(names)):
        raise DataError(
            f"학습 데이터의 라벨은 {len(names):,}가지인데 model.num_labels는 {asked:,}입니다.",
            where=f"라벨 열 '{settings.data.label_column}'",
            remedy="데이터를 확인하거나, model.num_labels를 지우고 데이터에서 찾게 하세요.",
        )
    return names


def most_common(counts: Mapping[str, int]) -> str:
    """Return the label of the highest count; the first of several."""
    return max(counts, key=lambda label: counts[label])


def only(label: str, label_names: Sequence[str]) -> np.ndarray:
    """Return the probabilities of a model that is sure of one label and of no other, (labels,) float32."""
    import numpy as np

    sure = np.zeros(len(label_names), dtype=np.float32)
    sure[label_names.index(label)] = 1
    return sure
