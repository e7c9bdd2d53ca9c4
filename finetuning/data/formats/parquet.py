"""Parquet and Arrow, through pyarrow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exceptions import DataError, first_line_of
from finetuning.data.formats.base import LONGEST_LINE, Source
from finetuning.data.formats.class_names import Classes, classes_of, named
from finetuning.korean.particles import with_particle

if TYPE_CHECKING:
    import pyarrow as pa

_MOST_ROWS, _MOST_BYTES = 10_000, 1 << 26  # that are read at a time; a row of more bytes is read alone
_LARGEST_CELL = 3 * LONGEST_LINE  # bytes; a Hangul syllable has three
_FILE_OF_ARROW = b"ARRO"  # the first bytes of Arrow's file format; its stream format has none

Opened = tuple["pa.Schema", Iterator["pa.RecordBatch"]]


def is_parquet(path: Path, start: bytes) -> bool:
    """Return whether a file is Parquet by its name or by its first four bytes."""
    return path.suffix.casefold() == ".parquet" or start == b"PAR1"


def is_arrow(path: Path, start: bytes) -> bool:
    """Return whether a file is Arrow by its name or by its first four bytes."""
    return path.suffix.casefold() == ".arrow" or start == _FILE_OF_ARROW


def read(path: Path) -> Source:
    """Read a file's rows in batches: dates and decimals become text, bytes are decoded, class ids become names."""
    return _read(path, "Parquet", _open_parquet)


def read_arrow(path: Path) -> Source:
    """Read the rows of a file of Arrow, which `save_to_disk` writes, like those of Parquet."""
    return _read(path, "Arrow", _open_arrow)


def _read(path: Path, name: str, open_file: Callable[[Path], AbstractContextManager[Opened]]) -> Source:
    import pyarrow as pa

    @contextmanager
    def opened(path: Path) -> Iterator[Opened]:
        try:
            with open_file(path) as found:
                yield found
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _broken(path, name, error) from None

    with opened(path) as (schema, _):
        columns, classes = tuple(schema.names), classes_of(schema, path)
    return Source(path, columns, _Records(path, opened, classes))


@contextmanager
def _open_parquet(path: Path) -> Iterator[Opened]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        yield file.schema_arrow, file.iter_batches(_rows_at_a_time(file.metadata))


@contextmanager
def _open_arrow(path: Path) -> Iterator[Opened]:
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        is_file = source.read(4) == _FILE_OF_ARROW
        source.seek(0)
        with pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source) as reader:
            batches = map(reader.get_batch, range(reader.num_record_batches)) if is_file else iter(reader)
            yield reader.schema, batches


class _Records:
    """The rows."""

    def __init__(self, path: Path, opened: Callable[[Path], AbstractContextManager[Opened]], classes: Classes) -> None:
        self.path, self.opened, self.classes = path, opened, classes

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with self.opened(self.path) as (_, batches):
            first = 1
            for batch in batches:
                names = batch.schema.names
                for name, column in zip(names, batch.columns, strict=True):
                    _check_size(column, name, first, self.path)
                first += batch.num_rows
                cells = [_readable(column).to_pylist() for column in batch.columns]
                for values in zip(*cells, strict=True):
                    row = {name: _plain(value) for name, value in zip(names, values, strict=True)}
                    for column, classes in self.classes.items():
                        if column in row:
                            row[column] = named(row[column], classes)
                    yield row


def _rows_at_a_time(metadata: Any) -> int:
    """Return how many rows are read together, by their average size."""
    size = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    return max(1, min(_MOST_ROWS, _MOST_BYTES * int(metadata.num_rows) // max(1, int(size))))


def _check_size(column: Any, name: str, first: int, path: Path) -> None:
    """Raise DataError where a cell is too large to be one text; first: the number of the first row."""
    if column.nbytes <= _LARGEST_CELL:
        return
    for number in range(len(column)):
        if column.slice(number, 1).nbytes > _LARGEST_CELL:
            raise DataError(
                f"한 칸이 {_LARGEST_CELL >> 20:,} MiB를 넘습니다.",
                where=f"{path}, {first + number:,}번째 행, '{name}' 열",
                remedy="예제마다 행을 나누어 저장했는지 확인하세요.",
            )


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


def _broken(path: Path, name: str, error: Exception) -> DataError:
    return DataError(
        f"{with_particle(name, '으로/로')} 읽을 수 없습니다: {first_line_of(error)}",
        where=str(path),
        remedy="파일이 손상되지 않았는지 확인하세요.",
    )
