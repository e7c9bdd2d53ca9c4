"""Tags of BIOES, BILOU and BMES as IOB2: the end and the single word of an entity have marks of their own there."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from finetuning.cells import json_value

_TAG = re.compile(r"O|([BIELSUM])-\S+")
_IN_IOB2 = {"S": "B", "U": "B", "E": "I", "L": "I", "M": "I"}
_LOOKED_AT = 1000

Rows = Iterable[Mapping[str, Any]]


def wider_tags(columns: Sequence[str], rows: Rows, where: str) -> tuple[tuple[str, ...], Rows, str] | None:
    """Convert the column of tags to IOB2; None for rows whose tags, if any, are IOB2 already."""
    first = next(iter(rows), {})
    for column in (column for column in columns if _tags(first.get(column)) is not None):
        looked_at = itertools.islice(rows, _LOOKED_AT)
        marks = sorted({mark for row in looked_at for mark in _marks(row.get(column)) if mark in _IN_IOB2})
        if marks:
            shown = ", ".join(f"{mark}-는 {_IN_IOB2[mark]}-로" for mark in marks)
            return tuple(columns), _Converted(rows, column), f"'{column}' 열의 태그를 BIO로 바꿨습니다({shown})."
    return None


class _Converted:
    """The rows, with tags of IOB2."""

    def __init__(self, rows: Rows, column: str) -> None:
        self.rows, self.column = rows, column

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in self.rows:
            tags = _tags(row.get(self.column))
            yield dict(row) if tags is None else {**row, self.column: [_in_iob2(tag) for tag in tags]}


def _tags(cell: Any) -> list[str] | None:
    """Return the tags of a cell, a list or one as JSON; None for a cell of anything else."""
    if isinstance(cell, str) and cell.startswith('["'):
        with suppress(ValueError):
            cell = json_value(cell)
    is_tags = isinstance(cell, list) and all(isinstance(item, str) and _TAG.fullmatch(item) for item in cell)
    return cell if is_tags else None


def _marks(cell: Any) -> Iterator[str]:
    return (tag[0] for tag in _tags(cell) or () if tag != "O")


def _in_iob2(tag: str) -> str:
    mark, dash, kind = tag.partition("-")
    return f"{_IN_IOB2.get(mark, mark)}{dash}{kind}"
