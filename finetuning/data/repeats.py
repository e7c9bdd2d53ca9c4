"""Rows of the same text: which they are, which stay together when data are held out, and the line that counts them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from finetuning.cells import SPLIT_NAMES, TEXT_ROLES
from finetuning.data.rows import Rows
from finetuning.data.table import coded, hashed

_log = logging.getLogger(__name__)


def text_hashes(rows: Rows) -> np.ndarray:
    """Return a hash of each row's text, or texts, as uint64: what a model is given, without the answer."""
    return hashed(rows.table, [role for role in TEXT_ROLES if role in rows.table.column_names])


@dataclass(frozen=True)
class Units:
    """Rows that stay together when data are held out.

    Attributes:
        codes: For each row the code of its unit, from 0.
        first: The first row of each unit, in the order of the rows.
    """

    codes: np.ndarray
    first: np.ndarray

    @classmethod
    def of_texts(cls, rows: Rows) -> Units:
        """Make a unit of all rows of one text."""
        hashes = text_hashes(rows)
        if len(np.unique(hashes)) == len(hashes):  # the codes of many rows take memory to find
            return cls.of_rows(rows)
        _, first, codes = np.unique(hashes, return_index=True, return_inverse=True)
        return cls(codes, np.sort(first))

    @classmethod
    def of_rows(cls, rows: Rows) -> Units:
        """Make a unit of each row."""
        return cls(np.arange(len(rows)), np.arange(len(rows)))

    def __len__(self) -> int:
        return len(self.first)

    def rows_beside(self, chosen: np.ndarray) -> Gathered:
        """Return all rows of the unit of each of these rows."""
        if len(self) == len(self.codes):
            return Gathered(chosen, np.ones(len(chosen), dtype=np.int64))
        order = np.argsort(self.codes, kind="stable")
        sizes = np.bincount(self.codes, minlength=len(self))
        starts, units = np.cumsum(sizes) - sizes, self.codes[chosen]
        own = sizes[units]
        first = np.repeat(starts[units] - (np.cumsum(own) - own), own)
        return Gathered(order[first + np.arange(len(first))], own)


@dataclass(frozen=True)
class Gathered:
    """Rows of some units, one unit behind the other.

    Attributes:
        rows: Positions of the rows, int64.
        sizes: How many of them each unit has, int64.
    """

    rows: np.ndarray
    sizes: np.ndarray

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the rows of each unit."""
        end = 0
        for size in self.sizes:
            end += int(size)
            yield self.rows[end - int(size) : end]

    def where(self, kept: np.ndarray) -> Gathered:
        """Return those units for which the mask is true."""
        return Gathered(self.rows[np.repeat(kept, self.sizes)], self.sizes[kept])

    def first(self) -> Gathered:
        """Return the first unit; none where there is none."""
        return Gathered(self.rows[: int(self.sizes[:1].sum())], self.sizes[:1])


def groups_with_texts(rows: Rows, role: str) -> np.ndarray:
    """Return a code for each row's group, where groups that share a text are one.

    Args:
        rows: The rows.
        role: The column of the groups.

    Returns:
        int32 codes, from 0.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    groups, names = coded(rows.table, role)
    texts = Units.of_texts(rows)
    size = len(names) + len(texts.first)
    edges = (np.ones(len(rows), dtype=np.int8), (groups, texts.codes + len(names)))
    _, joined = connected_components(coo_matrix(edges, shape=(size, size)), directed=False)
    codes: np.ndarray = joined[groups]
    return codes


def tell_repeats(splits: Mapping[str, Rows], has_labels: bool) -> dict[str, Rows]:
    """Log in one line how many rows repeat a text of train, if any do.

    Args:
        splits: As for `repeats_in`.
        has_labels: As for `repeats_in`.

    Returns:
        The splits, each with the number of its rows that do.
    """
    line, shared = repeats_in(splits, has_labels)
    if line:
        _log.log(logging.WARNING if any(shared.values()) else logging.INFO, "%s", line)
    return {name: replace(rows, in_train=shared.get(name, 0)) for name, rows in splits.items()}


def repeats_in(splits: Mapping[str, Rows], has_labels: bool) -> tuple[str, dict[str, int]]:
    """Count rows that repeat a text of train.

    Args:
        splits: The splits of a run, `train` among them.
        has_labels: Whether rows of one text and several labels contradict each other.

    Returns:
        A sentence, "" where no text is repeated; and how many rows of each other split have a text of train.
    """
    train = text_hashes(splits["train"])
    texts = np.unique(train)
    told = []
    if repeated := len(train) - len(texts):
        told.append(
            f"학습 데이터 안에서 중복된 {repeated:,}행{_contradictions(splits['train'], train, texts, has_labels)}"
        )
    shared = _leaked(splits, texts)
    told += [f"학습 데이터에도 있는 {SPLIT_NAMES[name]} 데이터 {count:,}행" for name, count in shared.items() if count]
    return f"중복된 텍스트가 있습니다: {', '.join(told)}." if told else "", shared


def _leaked(splits: Mapping[str, Rows], texts: np.ndarray) -> dict[str, int]:
    """Count the rows of each split besides train that have one of these texts, sorted hashes."""
    return {name: _count_in(texts, text_hashes(rows)) for name, rows in splits.items() if name != "train"}


def _count_in(texts: np.ndarray, hashes: np.ndarray) -> int:
    """Count the hashes that are among sorted ones; `np.isin` would sort all of them together."""
    places = np.searchsorted(texts, hashes)
    return int((texts[np.minimum(places, len(texts) - 1)] == hashes).sum()) if len(texts) else 0


def _contradictions(rows: Rows, hashes: np.ndarray, texts: np.ndarray, has_labels: bool) -> str:
    if not has_labels or "label" not in rows.table.column_names:
        return ""
    labels = coded(rows.table, "label")[0].astype(np.uint64)
    with_labels = np.unique(hashes + labels * np.uint64(0x9E3779B97F4A7C15))  # mixes: the sum wraps around
    several = len(with_labels) - len(texts)
    return f"(라벨이 서로 다른 것 {several:,}행)" if several else ""
