"""What reading a file gives: its columns and its rows, streamed; and how columns are spelled."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from exceptions import DataError

LONGEST_LINE = 1 << 27  # characters: what a file without line endings may take into memory


@dataclass(frozen=True)
class Source:
    """One file as rows. notes: what a person should know about how it was read, a line each."""

    path: Path
    columns: tuple[str, ...]
    rows: Iterable[Mapping[str, Any]]
    notes: tuple[str, ...] = ()


def clean_name(name: str) -> str:
    """A column's name as people type it: composed, which one made on a Mac may not be, and without white space."""
    return unicodedata.normalize("NFC", name).strip()


def check_columns(columns: Sequence[str], where: str) -> None:
    """DataError where a header has a name twice, or a column without one."""
    repeated = {name for name in columns if columns.count(name) > 1} - {""}
    if repeated or "" in columns:
        names = ", ".join(sorted(repeated))
        raise DataError(
            f"같은 열 이름이 여러 번 있습니다: {names}" if repeated else "이름이 빈 열이 있습니다.",
            where=where,
            remedy="첫 줄에 열 이름을 서로 다르게 쓰세요. pandas에서는 to_csv(..., index=False)로 저장하세요.",
        )


def with_clean_names(
    columns: Sequence[str], rows: Iterable[Mapping[str, Any]]
) -> tuple[tuple[str, ...], Iterable[Mapping[str, Any]]]:
    """The same rows under clean names; names that would become one are left apart as they are."""
    counts = Counter(map(clean_name, columns))
    names = {column: clean_name(column) for column in columns if counts[clean_name(column)] == 1}
    if all(name == column for column, name in names.items()):
        return tuple(columns), rows
    return tuple(names.get(column, column) for column in columns), _Renamed(rows, names)


class _Renamed:
    """Rows with other names for their columns, made anew each time they are gone through."""

    def __init__(self, rows: Iterable[Mapping[str, Any]], names: Mapping[str, str]) -> None:
        self.rows, self.names = rows, names

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in self.rows:
            yield {self.names.get(column, column): value for column, value in row.items()}


def lines_of(file: TextIO) -> Iterator[str]:
    """The lines of a text file with their endings; DataError where one has no end in sight."""
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
