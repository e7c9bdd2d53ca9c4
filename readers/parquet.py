"""Parquet, through pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from exceptions import DataError
from readers.base import Source

_ROWS_AT_A_TIME = 10_000


def read(path: Path) -> Source:
    """The file's rows, in batches from the disk."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        columns = tuple(pq.read_schema(path).names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _broken(path, error) from None
    return Source(path, columns, _Records(path))


class _Records:
    """The rows, read anew each time they are gone through."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[dict[str, Any]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self.path) as file:
                for batch in file.iter_batches(_ROWS_AT_A_TIME):
                    yield from batch.to_pylist()
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _broken(self.path, error) from None


def _broken(path: Path, error: Exception) -> DataError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return DataError(f"Parquet으로 읽을 수 없습니다: {reason}", where=str(path), remedy="파일이 온전한지 확인하세요.")
