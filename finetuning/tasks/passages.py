"""Passages in cells as data for search have them (a text, a list, objects with a title), and names of such columns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from exceptions import BadRow
from finetuning.cells import as_text, written_value

# Names of columns of hard negatives, of which a source may have several.
NEGATIVES = re.compile(
    r"(hard[_ ]?)?neg(ative)?s?([_ ]?passages?)?([_ ]?\d+)?|(오답|무관)[_ ]?(문서|지문)?[_ ]?\d*", re.IGNORECASE
)
_TITLE, _TEXT = ("title", "제목"), ("text", "contents", "content", "passage", "본문", "내용")
_SHOWN = 40  # characters


def only_text(cell: Any, name: str) -> str:
    """Return the one text of a cell; raise BadRow, which calls the cell `name`, where it is not one."""
    found = texts_in(cell)
    if len(found) != 1:
        raise BadRow(f"{name} 칸에 텍스트가 하나가 아닌 행", found=as_text(cell)[:_SHOWN])
    return found[0]


def texts_in(cell: Any) -> list[str]:
    """Return the texts of a cell: one, a list, or objects with a title and a text, which stand behind each other."""
    if isinstance(cell, str) and cell.lstrip()[:1] in ("[", "{"):
        with suppress(ValueError):
            written = written_value(cell)
            cell = written if isinstance(written, list | dict) else cell
    if isinstance(cell, Mapping):
        parts = [next((as_text(cell[name]) for name in names if cell.get(name)), "") for names in (_TITLE, _TEXT)]
        if not parts[1]:
            raise BadRow("텍스트가 없는 객체(text 키가 필요합니다)", found=as_text(cell)[:_SHOWN])
        return ["\n".join(filter(None, parts))]
    if isinstance(cell, list | tuple):
        return [text for one in cell for text in texts_in(one)]
    text = as_text(cell)
    return [text] if text.strip() else []
