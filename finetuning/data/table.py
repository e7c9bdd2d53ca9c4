"""Columns of a table, read a batch at a time: only distinct texts are held in memory.

A table is memory-mapped or in memory, whole or rows selected from one in its order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

_ROWS_AT_A_TIME = 1000


class Cells(Sequence[Any]):
    """A column's values as Python objects; iterating reads batches, where `datasets` reads one value at a time."""

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
    """Count each distinct value, in order of first appearance."""
    import pyarrow.compute as pc

    counts: dict[str, int] = {}
    for cells in _batches(table, column):
        for found in pc.value_counts(cells).to_pylist():
            counts[found["values"]] = counts.get(found["values"], 0) + found["counts"]
    return counts


def coded(table: Dataset, column: str) -> tuple[np.ndarray, list[str]]:
    """Encode a column of strings.

    Args:
        table: The table.
        column: The column's name.

    Returns:
        For each row, the position of its value among the distinct values (int32); and these values, sorted.
    """
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


def hashed(table: Dataset, columns: Sequence[str]) -> np.ndarray:
    """Hash the strings of one column or more, row by row.

    Args:
        table: The table.
        columns: The columns' names.

    Returns:
        A hash for each row, uint64; equal rows have equal hashes on every machine. In 10⁷ rows two different ones
        share a hash with a probability of 3 in a million.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    hashes, start = np.empty(len(table), dtype=np.uint64), 0
    for cells in zip(*(_batches(table, column) for column in columns), strict=True):
        joined = pc.binary_join_element_wise(*cells, "\x1f") if len(cells) > 1 else cells[0]
        texts = joined.cast(pa.binary()).to_pylist()
        digests = b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in texts)
        hashes[start : start + len(texts)] = np.frombuffer(digests, dtype="<u8")
        start += len(texts)
    return hashes


def numbers(table: Dataset, column: str) -> np.ndarray:
    """Read a column of numbers or booleans, one for each row."""
    parts = [cells.to_numpy(zero_copy_only=False) for cells in _batches(table, column)]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


def values_of(table: Dataset, column: str) -> np.ndarray:
    """Read the numbers of a column, one for each row or those of all its lists."""
    import pyarrow as pa

    is_list = any(
        is_kind(table.data.schema.field(column).type) for is_kind in (pa.types.is_list, pa.types.is_large_list)
    )
    return list_items(table, column) if is_list else numbers(table, column)


def list_lengths(table: Dataset, column: str) -> np.ndarray:
    """Return the length of each row's list, int32, without reading the items."""
    import pyarrow.compute as pc

    lengths = np.empty(len(table), dtype=np.int32)
    start = 0
    for cells in _batches(table, column):
        lengths[start : start + len(cells)] = pc.list_value_length(cells)
        start += len(cells)
    return lengths


def list_items(table: Dataset, column: str) -> np.ndarray:
    """Read the items of all rows' lists of numbers, one list behind the other."""
    parts = [cells.flatten().to_numpy(zero_copy_only=False) for cells in _batches(table, column)]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


def text_sizes(table: Dataset) -> np.ndarray:
    """Return the bytes of each row's texts together, int64, without reading the texts."""
    import pyarrow as pa
    import pyarrow.compute as pc

    sizes = np.zeros(len(table), dtype=np.int64)
    for field in table.data.schema:
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            start = 0
            for cells in _batches(table, field.name):
                sizes[start : start + len(cells)] += pc.fill_null(pc.binary_length(cells), 0).to_numpy()
                start += len(cells)
    return sizes


def _batches(table: Dataset, column: str) -> Iterator[pa.Array]:
    """Yield the column batch by batch; of a selection, the selected rows, which are in the table's order.

    `datasets` itself would read selected rows one at a time.
    """
    selected = table._indices.column(0).to_numpy() if table._indices is not None else None
    start = 0
    for chunk in table.data.column(column).chunks:
        end = start + len(chunk)
        if selected is None:
            yield chunk
        else:
            first, last = np.searchsorted(selected, (start, end))
            yield chunk.take((selected[first:last] - start).astype(np.int64))
        start = end


def selected(table: Dataset, positions: np.ndarray) -> Dataset:
    """Select rows in an order; `Dataset.select` would make a Python object of each position.

    Args:
        table: The table.
        positions: Positions of the rows, int64.

    Returns:
        The rows, which hold eight bytes each beside the table; none where they stand together in it.
    """
    import pyarrow as pa
    from datasets import Dataset
    from datasets.table import InMemoryTable

    first, count = (int(positions[0]) if len(positions) else 0), len(positions)
    if not count or (positions[-1] - first == count - 1 and bool((positions[1:] > positions[:-1]).all())):
        return table.select(range(first, first + count))
    own = (positions if table._indices is None else table._indices.column(0).to_numpy()[positions]).astype(np.uint64)
    # by the fingerprint `datasets` finds files that it has made of these very rows
    digest = hashlib.blake2b(own.data, digest_size=16, key=table._fingerprint.encode()).hexdigest()
    indices = InMemoryTable(pa.table({"indices": pa.array(own)}))
    return Dataset(table.data, info=table.info.copy(), split=table.split, indices_table=indices, fingerprint=digest)


def rows_at(table: Dataset, positions: Sequence[int] | np.ndarray) -> Iterator[dict[str, Any]]:
    """Read rows in any order, a thousand at a time: `datasets` takes as long for one of them alone."""
    for start in range(0, len(positions), _ROWS_AT_A_TIME):
        columns = table[[int(position) for position in positions[start : start + _ROWS_AT_A_TIME]]]
        yield from (dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True))
