"""Labels: their order, their number against `model.num_labels`, and what the commonest one scores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from exceptions import DataError
from finetuning.config.schema import Settings
from finetuning.korean.particles import with_particle
from finetuning.types import Naive


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
    names = tuple(sorted(labels, key=label_order))
    check_number(names, settings, "라벨")
    return names


def check_number(names: Sequence[str], settings: Settings, kind: str) -> None:
    """Raise DataError where train has more or fewer labels than `model.num_labels`; kind: the Korean word for them."""
    asked = settings.model.num_labels
    if asked not in (None, len(names)):
        raise DataError(
            f"학습 데이터의 {with_particle(kind, '은/는')} {len(names):,}가지인데 model.num_labels는 {asked:,}입니다.",
            where=f"라벨 열 '{settings.data.label_column}'",
            remedy="데이터를 확인하거나, model.num_labels를 지우고 데이터에서 찾게 하세요.",
        )


def always_commonest(counts: Mapping[str, int], rows: int, label_names: Sequence[str]) -> Naive:
    """Return what a model scores that says the label of the highest count about every row, and is sure of it."""
    import numpy as np

    commonest = max(counts, key=lambda label: counts[label])
    sure = np.zeros(len(label_names), dtype=np.float32)
    sure[label_names.index(commonest)] = 1
    return Naive(f"항상 가장 흔한 라벨('{commonest}')로만 예측하면", [sure] * rows)
