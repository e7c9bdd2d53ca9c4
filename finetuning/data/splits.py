"""Which rows are held out of train: a seeded share of the texts, with the same share of every label, or groups."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from exceptions import DataError
from finetuning.cells import ROLE_NAMES, SPLIT_NAMES
from finetuning.data.cleaning import GROUP
from finetuning.data.repeats import Gathered, Units, groups_with_texts
from finetuning.data.rows import Rows
from finetuning.data.table import coded, selected
from finetuning.files import content_key
from finetuning.korean.particles import with_particle
from finetuning.tasks.base import Task

_log = logging.getLogger(__name__)
_ROWS_A_LABEL = 10  # with fewer on average there is nothing to stratify by


def hold_out(train: Rows, name: str, share: float, seed: int, task: Task) -> tuple[Rows, Rows]:
    """Divide train into rows to keep and a split to hold out. All rows of one text are on one side.

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
            f"행이 {len(train)}개뿐이어서 {SPLIT_NAMES[name]} 데이터를 분리할 수 없습니다.",
            where=train.where,
            remedy=f"데이터를 더 넣거나 {SPLIT_NAMES[name]} 데이터를 따로 준비하세요.",
        )
    random = np.random.default_rng([seed, len(train), len(name)])
    group = GROUP if GROUP in train.table.column_names else task.reads.grouped_by
    held = _groups(train, group, share, random) if group is not None else _rows(train, share, random, task)
    is_held = np.zeros(len(train), dtype=bool)
    is_held[held] = True
    _log.info(
        "%s 데이터가 없어 학습 데이터 %s행 중 %s행을 %s용으로 분리합니다. (data.%s_split, seed %d)",
        SPLIT_NAMES[name], f"{len(train):,}", f"{len(held):,}", SPLIT_NAMES[name], name, seed,
    )  # fmt: skip
    by = [group] if group else []
    kept, held_out = (
        replace(
            train,
            table=selected(train.table, np.flatnonzero(mask)),
            key=content_key(train.key, str(seed), str(share), name, part, *by),
        )
        for part, mask in (("kept", ~is_held), ("held", is_held))
    )
    return kept, held_out


def _groups(train: Rows, group: str, share: float, random: np.random.Generator) -> np.ndarray:
    codes = groups_with_texts(train, group) if group == GROUP else coded(train.table, group)[0]
    held = hold_out_groups(codes, share, random)
    if not len(held):
        only = with_particle(ROLE_NAMES.get(group, group), "이/가")
        same = " 같은 텍스트가 있는 그룹은 하나로 셉니다." if group == GROUP else ""
        raise DataError(
            f"{only} 하나뿐이어서 검증 데이터를 분리할 수 없습니다.{same}",
            where=train.where,
            remedy="데이터를 더 넣거나 검증 데이터를 따로 준비하세요.",
        )
    return held


def _rows(train: Rows, share: float, random: np.random.Generator, task: Task) -> np.ndarray:
    """Choose texts, each with all of its rows; or rows, where too few texts differ to leave train every label."""
    has_labels = "label" in train.table.column_names
    codes, cells = coded(train.table, "label") if has_labels else (np.zeros(len(train), dtype=np.int32), [""])

    def held_of(units: Units, chosen: np.ndarray) -> Gathered:
        held = units.rows_beside(chosen)
        keeps_labels = task.reads.has_labels and not task.reads.labels_are_open
        return leaving_every_label(codes, cells, held, task.reads.labels_in) if keeps_labels else held

    texts = Units.of_texts(train)
    held = held_of(texts, texts.first[hold_out_rows(codes[texts.first], share, random)]).rows
    if not len(held) and len(texts) > 1 and (task.reads.has_labels or len(texts) < len(train)):
        # so few texts that the share is none of them: one that leaves every label
        held = held_of(texts, random.permutation(texts.first)).first().rows
    if not len(held) and len(texts) < len(train):
        held = held_of(Units.of_rows(train), hold_out_rows(codes, share, random)).rows
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
    codes: np.ndarray, cells: Sequence[str], held: Gathered, labels_in: Callable[[str], Sequence[str]]
) -> Gathered:
    """Drop held-out rows that would leave train without a row of some label.

    Args:
        codes: For each row, the position of its label cell in `cells`.
        cells: The distinct label cells.
        held: Rows to hold out, those of one text together.
        labels_in: The labels in a cell.

    Returns:
        Those of `held` that remain.
    """
    labels = [labels_in(cell) for cell in cells]
    left, asked = (_counted(labels, rows) for rows in (codes, codes[held.rows]))
    if all(left[label] > count for label, count in asked.items()):
        return held  # enough is left without all of them
    kept = np.zeros(len(held.sizes), dtype=bool)
    for number, rows in enumerate(held):
        found = Counter(label for code in codes[rows].tolist() for label in labels[code])
        if all(left[label] > count for label, count in found.items()):
            left.subtract(found)
            kept[number] = True
    return held.where(kept)


def _counted(labels: Sequence[Sequence[str]], codes: np.ndarray) -> Counter[str]:
    """Count the labels of rows, whose codes are positions in `labels`."""
    found = Counter[str]()
    for own, count in zip(labels, np.bincount(codes, minlength=len(labels)).tolist(), strict=True):
        for label in own:
            found[label] += count
    return found


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
