"""Whether the quotation marks of a tab-separated file are those of a program that wrote it, or text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from finetuning.data.formats.base import lines_of

_FIELD = re.compile(r'"[^"]*(?:""[^"]*)*"|[^"\t]*')
_LONGEST_RECORD = 1 << 20  # characters; a bare quotation mark may be far from the next one
_NUMBER = re.compile(r"\s*[+-]?[0-9]*\.?[0-9]*\s*")


def are_of_a_writer(path: Path, encoding: str) -> bool:
    """Return whether all quotation marks of a file were put there by a program that quotes values, such as pandas.

    Such a program quotes a value that holds a tab, a line break or a quotation mark, or else every value. Published
    Korean files have bare marks in their texts, which show that none of their marks is a program's.
    """
    needed = idle = plain = False
    with path.open(encoding=encoding, newline="") as file:
        for record in _records(lines_of(file)):
            if record is None:
                return False
            if '"' not in record:
                plain = plain or any(not _NUMBER.fullmatch(field) for field in record.split("\t"))
                continue
            fields = _fields(record)
            if fields is None or any(_swallows_lines(field) for field in fields):
                return False
            quoted = [field[1:-1] for field in fields if field.startswith('"')]
            needed = needed or any(_needs_quotes(field) for field in quoted)
            idle = idle or any(not (_needs_quotes(field) or "," in field) for field in quoted)  # Excel quotes commas
            plain = plain or any(not (field.startswith('"') or _NUMBER.fullmatch(field)) for field in fields)
            if idle and plain:
                return False
    return needed or (idle and not plain)


def _records(lines: Iterator[str]) -> Iterator[str | None]:
    """Yield each record without its line ending, as if marks were a program's; None where they cannot be."""
    for line in lines:
        record = line
        while record.count('"') % 2:
            following = next(lines, None)
            if following is None or len(record) > _LONGEST_RECORD:
                yield None
                return
            record += following
        yield record.rstrip("\r\n")


def _fields(record: str) -> list[str] | None:
    """Split a record into fields, with their marks; None if a mark is neither around a field nor doubled inside."""
    fields, place = list[str](), 0
    while True:
        found = _FIELD.match(record, place)
        assert found is not None  # the pattern matches the empty text
        fields.append(found[0])
        if found.end() == len(record):
            return fields
        if record[found.end()] != "\t":
            return None
        place = found.end() + 1


def _needs_quotes(field: str) -> bool:
    return any(mark in field for mark in '\t\r\n"')


def _swallows_lines(field: str) -> bool:
    """Return whether a field goes over tabs and line breaks, as from one bare mark to the next."""
    return "\t" in field and ("\n" in field or "\r" in field)
