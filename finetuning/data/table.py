"""A column of a table on the disk, gone through a batch at a time: no text is held but its kinds.

The tables are files, or rows chosen from one in the file's order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset


class Cells(Sequence[Any]):
    """A column's values as Python has them: one is read by itself, all in batches (`datasets` reads each by itself)."""

    def __init__(self, table: Dataset, column: str) -> None:
        self.table, self.column = table.select_columns(column), column

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, place: Any) -> Any:
        return self.table[place][self.column]

    def __iter__(self) -> Iterator[Any]:
        for cells in _batches(self.table, self.column):
            yield from cells.to_pylist()


def counted(table: Dataset, column: str) -> dict[str, int]:
    """How often each value occurs, in the order they first come."""
    import pyarrow.compute as pc

    counts: dict[str, int] = {}
    for cells in _batches(table, column):
        for found in pc.value_counts(cells).to_pylist():
            counts[found["values"]] = counts.get(found["values"], 0) + found["counts"]
    return counts


def coded(table: Dataset, column: str) -> tuple[np.ndarray, list[str]]:
    """Each row's value as its place among the distinct values (int32), and these, sorted."""
    places: dict[str, int] = {}
    codes = np.empty(len(table), dtype=np.int32)
    start = 0
    for cells in _batches(table, column):
        encoded = cells.dictionary_encode()
        known = [places.setdefault(value, len(places)) for value in encoded.dictionary.to_pylist()]
        codes[start : start + len(cells)] = np.array(known, dtype=np.int32)[encoded.indices.to_numpy()]
        start += len(cells)
    names = sorted(places)
    rank = np.empty(len(names), dtype=np.int32)
    rank[[places[name] for name in names]] = np.arange(len(names), dtype=np.int32)
    return rank[codes], names


def numbers(table: Dataset, column: str) -> np.ndarray:
    """A column of numbers or truth values, one for each row."""
    parts = [cells.to_numpy(zero_copy_only=False) for cells in _batches(table, column)]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


def list_lengths(table: Dataset, column: str) -> np.ndarray:
    """How long each row's list is, int32, without reading what is in it."""
    import pyarrow.compute as pc

    lengths = np.empty(len(table), dtype=np.int32)
    start = 0
    for cells in _batches(table, column):
        lengths[start : start + len(cells)] = pc.list_value_length(cells)
        start += len(cells)
    return lengths


def _batches(table: Dataset, column: str) -> Iterator[pa.Array]:
    """The column as the file's batches have it, of a table of chosen rows what was chosen, which is in their order.

    `datasets` itself takes chosen rows one at a time.
    """
    chosen = table._indices.column(0).to_numpy() if table._indices is not None else None
    start = 0
    for chunk in table.data.column(column).chunks:
        end = start + len(chunk)
        if chosen is None:
            yield chunk
        else:
            first, last = np.searchsorted(chosen, (start, end))
            yield chunk.take((chosen[first:last] - start).astype(np.int64))
        start = end
