"""Tables for a terminal, where a Hangul syllable takes two columns."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

_GAP = "  "


def table_lines(header: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> list[str]:
    """Align a table's columns.

    Args:
        header: Names of the columns.
        rows: Cells, as many in each row as the header has.
        right: Places of the columns that are aligned to the right.

    Returns:
        The header, a rule and the rows, a line each.
    """
    widths = [max(map(width, cells)) for cells in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        spaces = [" " * (size - width(cell)) for size, cell in zip(widths, cells, strict=True)]
        padded = (
            f"{space}{cell}" if place in right else f"{cell}{space}"
            for place, (space, cell) in enumerate(zip(spaces, cells, strict=True))
        )
        return _GAP.join(padded).rstrip()

    return [line(header), _GAP.join("─" * size for size in widths), *map(line, rows)]


def width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return sum(_columns(letter) for letter in text)


def shortened(text: str, most: int) -> str:
    """Return a text of at most so many columns, with `…` in place of its middle: names differ at both ends."""
    if width(text) <= most:
        return text
    head, tail = "", ""
    for letter, other in zip(text, reversed(text), strict=True):
        if width(head) + width(tail) + _columns(letter) + 1 > most:
            break
        head += letter
        if width(head) + width(tail) + _columns(other) + 1 > most:
            break
        tail = other + tail
    return f"{head}…{tail}"


def _columns(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1
