"""Which rows are held out of train: a seeded share, with the same share of every label, or whole groups."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from exceptions import DataError
from finetuning.cells import ROLE_NAMES
from finetuning.data.rows import Rows
from finetuning.data.table import coded
from finetuning.files import content_key
from finetuning.korean.particles import with_particle
from finetuning.tasks.base import Task

_log = logging.getLogger(__name__)
_ROWS_A_LABEL = 10  # with fewer on average there is nothing to stratify by
_NAMES = {"validation": "검증", "test": "테스트"}


def hold_out(train: Rows, name: str, share: float, seed: int, task: Task) -> tuple[Rows, Rows]:
    """Divide train into rows to keep and a split to hold out.

    Args:
        train: Rows to divide, two or more.
        name: The split to make, `validation` or `test`.
        share: Its share of the rows, 0 to 1.
        seed: The seed of the choice.
        task: Knows the group of a row and the labels of a cell.

    Returns:
        The kept rows and the held-out rows, each in the order of train.

    Raises:
        DataError: There are fewer than two rows or groups.
    """
    if len(train) < 2:
        raise DataError(
            f"행이 {len(train)}개뿐이어서 {_NAMES[name]} 데이터를 분리할 수 없습니다.",
            where=train.where,
            remedy=f"데이터를 더 넣거나 {_NAMES[name]} 데이터를 따로 준비하세요.",
        )
    random = np.random.default_rng([seed, len(train), len(name)])
    group = task.reads.grouped_by
    held = _groups(train, group, share, random) if group is not None else _rows(train, share, random, task)
    is_held = np.zeros(len(train), dtype=bool)
    is_held[held] = True
    _log.info(
        "%s 데이터가 없어 학습 데이터 %s행 중 %s행을 %s용으로 분리합니다. (data.%s_split, seed %d)",
        _NAMES[name], f"{len(train):,}", f"{len(held):,}", _NAMES[name], name, seed,
    )  # fmt: skip
    by = [group] if group else []
    kept, held_out = (
        Rows(
            train.where,
            train.table.select(np.flatnonzero(mask)),
            content_key(train.key, str(seed), str(share), name, part, *by),
        )
        for part, mask in (("kept", ~is_held), ("held", is_held))
    )
    return kept, held_out


def _groups(train: Rows, group: str, share: float, random: np.random.Generator) -> np.ndarray:
    held = hold_out_groups(coded(train.table, group)[0], share, random)
    if not len(held):
        raise DataError(
            f"{with_particle(ROLE_NAMES.get(group, group), '이/가')} 하나뿐이어서 검증 데이터를 분리할 수 없습니다.",
            where=train.where,
            remedy="데이터를 더 넣거나 검증 데이터를 따로 준비하세요.",
        )
    return held


def _rows(train: Rows, share: float, random: np.random.Generator, task: Task) -> np.ndarray:
    has_labels = "label" in train.table.column_names
    codes, cells = coded(train.table, "label") if has_labels else (np.zeros(len(train), dtype=np.int32), [""])
    held = hold_out_rows(codes, share, random)
    if task.reads.has_labels:
        held = leaving_every_label(codes, cells, held, task.reads.labels_in)
        if not len(held):  # so few rows that the share is none of them: one that leaves every label
            held = leaving_every_label(codes, cells, random.permutation(len(train)), task.reads.labels_in)[:1]
    return held if len(held) else random.integers(len(train), size=1)


def hold_out_rows(labels: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
    """Choose a share of the rows, the same share of every label where rows share labels.

    Args:
        labels: A code for each row's label.
        share: The share, 0 to 1.
        random: Source of the choice.

    Returns:
        int64 positions.
    """
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
    """Drop held-out positions that would leave train without a row of some label.

    Args:
        codes: For each row, the position of its label cell in `cells`.
        cells: The distinct label cells.
        held: Positions to hold out.
        labels_in: The labels in a cell.

    Returns:
        The positions of `held` that remain.
    """
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
    """Choose whole groups at random so that their rows are closest to a share of all rows; keep at least one group.

    Args:
        groups: A code for each row's group.
        share: The share, 0 to 1.
        random: Source of the choice.

    Returns:
        int64 positions; empty where there is one group only.
    """
    sizes = np.bincount(groups)
    order = random.permutation(len(sizes))
    distance = np.abs(np.cumsum(sizes[order]) - share * len(groups))[:-1]
    chosen = order[: int(distance.argmin()) + 1] if len(distance) else order[:0]
    return np.flatnonzero(np.isin(groups, chosen))
