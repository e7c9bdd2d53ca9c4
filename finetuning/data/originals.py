"""Rows as they are in their source, with every column, by the numbers that the clean rows keep."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from exceptions import FinetuningError
from finetuning.cells import TEXT_ROLES, as_text
from finetuning.data.rows import Rows
from finetuning.data.table import numbers, rows_at

if TYPE_CHECKING:
    from datasets import Dataset

_COMPARED = 500  # rows, to see whether the source is still the same


def originals(split: Rows, rows: Dataset, positions: Sequence[int] | np.ndarray) -> list[dict[str, Any]] | None:
    """Read rows again from their source.

    Args:
        split: The split, with its source, or with those of a mixture.
        rows: Its clean rows, in the order that predictions have.
        positions: Positions in `rows`.

    Returns:
        A row for each position, cells by the source's column names. None where the source can no longer be read, or
        has other texts there than when the run began.
    """
    wanted = numbers(rows, "row")[np.asarray(positions, dtype=np.int64)]
    sources = [(part.rows, part.first) for part in split.parts] or [(split, 0)]
    found: dict[int, dict[str, Any]] = {}
    try:
        for own, first in sources:
            found |= _by_number(own, first, set(wanted.tolist()))
    except (FinetuningError, OSError, ValueError):  # changed or removed while the run went on
        return None
    if not all(number in found for number in wanted.tolist()):
        return None
    read = [found[number] for number in wanted.tolist()]
    roles = {role: name for role, name in sources[0][0].columns.items() if role in TEXT_ROLES and len(sources) == 1}
    looked_at = range(0, len(read), max(1, len(read) // _COMPARED))
    clean = rows_at(rows, [int(positions[place]) for place in looked_at])
    same = (_is_same(row, read[place], roles) for row, place in zip(clean, looked_at, strict=True))
    return read if all(same) else None


def _by_number(own: Rows, first: int, wanted: set[int]) -> Iterable[tuple[int, dict[str, Any]]]:
    if own.raw is None:
        return []
    return [
        (number, dict(row)) for number, row in enumerate(own.raw.rows, first + 1) if number in wanted
    ]  # a source is read to its end: it may have no other way to its rows


def _is_same(row: Mapping[str, Any], original: Mapping[str, Any], roles: Mapping[str, str]) -> bool:
    """Return whether the texts of a clean row are those of its source, but for what cleaning changes."""
    cells = ((row[role], original.get(name)) for role, name in roles.items() if role in row)
    return all(_letters(clean) == _letters(as_text(cell)) for clean, cell in cells if isinstance(cell, str))


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", text)))
