"""What reading a file gives: its columns and its rows, streamed; and how columns are spelled."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
