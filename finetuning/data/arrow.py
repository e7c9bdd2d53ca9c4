"""Rows and examples as Arrow tables, on the disk or in memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

_ROWS_AT_A_TIME, _CHARACTERS_AT_A_TIME = 10_000, 1 << 26
_BYTES_A_BATCH = 1 << 22


def row_tables(rows: Iterator[dict[str, Any]], roles: Iterable[str]) -> Iterator[pa.Table]:
    """Collect clean rows into tables: `row` as int64, all else as strings.

    Args:
        rows: Clean rows.
        roles: The columns of the table where there is no row.

    Yields:
        One table or more, of at most 10,000 rows or 64 million characters each.
    """
    import pyarrow as pa

    following = chunks(rows)
    chunk = next(following, [])
    columns = [role for role in (chunk[0] if chunk else roles) if role != "row"]
    schema = pa.schema([("row", pa.int64()), *((role, pa.string()) for role in columns)])
    yield pa.Table.from_pylist(chunk, schema)
    for chunk in following:
        yield pa.Table.from_pylist(chunk, schema)


def chunks(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Divide rows into lists of at most 10,000 rows or 64 million characters."""
    chunk, characters = list[dict[str, Any]](), 0
    for row in rows:
        chunk.append(row)
        characters += sum(len(cell) for cell in row.values() if isinstance(cell, str))
        if len(chunk) == _ROWS_AT_A_TIME or characters >= _CHARACTERS_AT_A_TIME:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def example_batch(columns: Mapping[str, Sequence[Any]]) -> pa.RecordBatch:
    """Make a record batch of Python values; lists of integers (tokens, positions in a text) become int32."""
    import pyarrow as pa

    arrays = {name: pa.array(values) for name, values in columns.items()}
    for name, array in arrays.items():
        if pa.types.is_list(array.type) and pa.types.is_integer(array.type.value_type):
            arrays[name] = array.cast(pa.list_(pa.int32()))
    return pa.RecordBatch.from_pydict(arrays)


def joined(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Join record batches into tables of about 4 MiB, since a reader holds kilobytes for each batch of a file.

    All tables have the schema of the first ones. A list column without a value so far waits for a later batch to show
    its type.
    """
    import pyarrow as pa

    schema, held, size = None, list[pa.RecordBatch](), 0
    for batch in batches:
        held.append(batch)
        size += batch.nbytes
        if size < _BYTES_A_BATCH:
            continue
        schema = schema or _schema_of(held)
        if _lacks_a_type(schema):
            schema = None
            continue
        yield pa.concat_tables([pa.Table.from_batches([part]).cast(schema) for part in held]).combine_chunks()
        held, size = [], 0
    if held:
        schema = schema or _schema_of(held)
        yield pa.concat_tables([pa.Table.from_batches([part]).cast(schema) for part in held]).combine_chunks()


def write_tables(tables: Iterable[pa.Table], path: Path) -> None:
    """Write one table or more as an Arrow stream, holding one at a time."""
    import pyarrow as pa

    following = iter(tables)
    first = next(following)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, first.schema) as stream:
        for table in itertools.chain([first], following):
            stream.write_table(table)


def in_memory(tables: Iterable[pa.Table]) -> Dataset:
    """Hold one table or more in memory, as a Dataset that no library writes to the disk."""
    import pyarrow as pa
    from datasets import Dataset
    from datasets.table import InMemoryTable

    # with a fingerprint given, `datasets` does not hash the rows for one
    return Dataset(InMemoryTable(pa.concat_tables(tables)), fingerprint="in-memory")


def _schema_of(batches: Sequence[pa.RecordBatch]) -> pa.Schema:
    import pyarrow as pa

    return pa.unify_schemas([batch.schema for batch in batches], promote_options="permissive")


def _lacks_a_type(schema: pa.Schema) -> bool:
    import pyarrow as pa

    return any(pa.types.is_null(getattr(field.type, "value_type", field.type)) for field in schema)
