"""Parquet, through pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from exceptions import DataError, first_line_of
from finetuning.data.formats.base import Source

_ROWS_AT_A_TIME = 10_000


def is_parquet(path: Path, start: bytes) -> bool:
    """Return whether a file is Parquet by its name or by its first four bytes."""
    return path.suffix.casefold() == ".parquet" or start == b"PAR1"


def read(path: Path) -> Source:
    """Read a file's rows in batches; dates and decimals become text, bytes are decoded as UTF-8."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        columns = tuple(pq.read_schema(path).names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _broken(path, error) from None
    return Source(path, columns, _Records(path))


class _Records:
    """The rows."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[dict[str, Any]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self.path) as file:
                for batch in file.iter_batches(_ROWS_AT_A_TIME):
                    names = batch.schema.names
                    cells = [_readable(column).to_pylist() for column in batch.columns]
                    for values in zip(*cells, strict=True):
                        yield {name: _plain(value) for name, value in zip(names, values, strict=True)}
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _broken(self.path, error) from None


def _readable(column: Any) -> Any:
    """Cast a column of dates or times to text, since Python's own types cannot hold nanoseconds."""
    import pyarrow as pa

    kinds = (pa.types.is_timestamp, pa.types.is_date, pa.types.is_time)
    return column.cast(pa.string()) if any(is_kind(column.type) for is_kind in kinds) else column


def _plain(value: Any) -> Any:
    """Convert a cell to a JSON value."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="backslashreplace")
    return str(value)


def _broken(path: Path, error: Exception) -> DataError:
    return DataError(
        f"Parquet으로 읽을 수 없습니다: {first_line_of(error)}",
        where=str(path),
        remedy="파일이 손상되지 않았는지 확인하세요.",
    )
