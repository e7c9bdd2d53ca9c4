"""The interface of readers, and the spelling of column names."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from exceptions import DataError
from finetuning.korean.particles import with_particle

LONGEST_LINE = 1 << 25  # characters of a line that are read into memory, of a file without line endings say


@dataclass(frozen=True)
class Source:
    """A file as rows.

    Attributes:
        path: The file.
        columns: Names of the columns.
        rows: Cells by column; can be iterated again, each time reading the file from its start.
        notes: How the file was read, a sentence each, for the log.
    """

    path: Path
    columns: tuple[str, ...]
    rows: Iterable[Mapping[str, Any]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TextFile:
    """A text file to read.

    Attributes:
        path: The file.
        encoding: Its encoding, as Python names it.
        notes: How the encoding was found, a sentence each.
        path_to_records: `data.records`, the way to the rows of JSON; None finds them.
    """

    path: Path
    encoding: str
    notes: tuple[str, ...] = ()
    path_to_records: str | None = None


def clean_name(name: str) -> str:
    """Return a column's name in NFC, which names made on a Mac are not in, on one line, without surrounding spaces."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def check_columns(columns: Sequence[str], where: str, written: Sequence[str] | None = None) -> None:
    """Check a header.

    Args:
        columns: Names of the columns.
        where: The source, as messages name it.
        written: The names as they are in the source, where they were cleaned.

    Raises:
        DataError: A name occurs twice or is empty.
    """
    repeated = [name for name, count in Counter(columns).items() if count > 1 and name]
    if repeated:
        forms = dict(zip(written or columns, columns, strict=True))
        told = [form for form, name in forms.items() if name == repeated[0]]
        if len(told) > 1:
            raise DataError(
                f"공백이나 한글의 저장 방식(NFC, NFD)만 다른 열 이름이 있습니다: {', '.join(map(repr, told))}",
                where=where,
                remedy=f"모두 {with_particle(repr(repeated[0]), '으로/로')} 읽혀 구별할 수 없습니다. 첫 줄의 이름을 "
                "서로 다르게 쓰거나 열을 하나만 남기세요.",
            )
        raise DataError(
            f"같은 열 이름이 여러 번 있습니다: {', '.join(sorted(repeated))}",
            where=where,
            remedy="첫 줄에 열 이름을 서로 다르게 쓰거나 열을 하나만 남기세요.",
        )
    if "" in columns:
        raise DataError(
            "이름이 빈 열이 있습니다.",
            where=where,
            remedy="첫 줄에 열 이름을 모두 쓰세요. pandas에서는 to_csv(..., index=False)로 저장하세요.",
        )


def titled(title: str, where: str, remedy: str = "") -> DataError:
    """Return the error for a table with a title above the names of its columns.

    Args:
        title: What the first line says.
        where: That line, as messages name it.
        remedy: What else may help in a file of this format.

    Returns:
        The error.
    """
    return DataError(
        f"첫 줄이 열 이름이 아니라 제목으로 보입니다: {title[:30]}",
        where=where,
        remedy="열 이름이 있는 줄이 맨 위에 오도록 그 위의 줄을 지우세요. "
        f"제목이 아니라 열 이름이면, 값이 있는 열마다 첫 줄에 이름을 쓰세요.{remedy}",
    )


def with_clean_names(
    columns: Sequence[str], rows: Iterable[Mapping[str, Any]]
) -> tuple[tuple[str, ...], Iterable[Mapping[str, Any]]]:
    """Give columns clean names; names that would become equal stay unchanged.

    Args:
        columns: Names of the columns.
        rows: Cells by column.

    Returns:
        The new names, and the rows with these names.
    """
    counts = Counter(map(clean_name, columns))
    names = {column: clean_name(column) for column in columns if counts[clean_name(column)] == 1}
    if all(name == column for column, name in names.items()):
        return tuple(columns), rows
    return tuple(names.get(column, column) for column in columns), _Renamed(rows, names)


class _Renamed:
    """Rows under other names."""

    def __init__(self, rows: Iterable[Mapping[str, Any]], names: Mapping[str, str]) -> None:
        self.rows, self.names = rows, names

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in self.rows:
            yield {self.names.get(column, column): value for column, value in row.items()}


def lines_of(file: TextIO) -> Iterator[str]:
    """Read the lines of a text file.

    Args:
        file: The open file.

    Yields:
        The lines, with their endings.

    Raises:
        DataError: A line is longer than LONGEST_LINE.
    """
    number = 1
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE and line[-1] not in "\r\n":
            raise DataError(
                f"한 줄이 {LONGEST_LINE:,}자를 넘습니다.",
                where=f"{file.name}, {number:,}번째 줄",
                remedy="예제마다 줄을 나누어 저장했는지 확인하세요.",
            )
        yield line
        number += 1
