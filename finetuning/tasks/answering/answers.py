"""A row's gold answers: from any common shape to texts with their places in the context's NFC."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from typing import Any

from exceptions import BadRow
from finetuning.cells import json_value

_SHOWN = 30


def gold_answers(cell: Any, context: str) -> list[dict[str, Any]]:
    """Read a row's answers.

    Args:
        cell: A list of {text, answer_start}, one such object, the Hub's {text: [...], answer_start: [...]}, or any of
            these as JSON.
        context: The context as it is in the source. `answer_start` counts its characters.

    Returns:
        [{text, answer_start}], both in terms of the context's NFC.

    Raises:
        BadRow: The cell has another shape, or an answer is not at its place in the context.
    """
    if isinstance(cell, str):
        try:
            cell = json_value(cell)
        except ValueError:
            raise BadRow("answer_start가 없는 정답", f"정답 {cell[:_SHOWN]!r}") from None
    return [_placed(text, start, context) for text, start in _pairs(cell)]


def answer_texts(cells: Sequence[str]) -> list[list[str]]:
    """Return the texts of each row's gold answers."""
    return [[answer["text"] for answer in json.loads(cell)] for cell in cells]


def is_true(cell: Any) -> bool:
    """Return whether a cell means true, also as text in a CSV file."""
    return str(cell).strip().casefold() in {"true", "1", "1.0"}


def _pairs(cell: Any) -> list[tuple[Any, Any]]:
    if isinstance(cell, dict) and isinstance(cell.get("text"), list):
        starts = cell.get("answer_start")
        if not isinstance(starts, list) or len(starts) != len(cell["text"]):
            raise BadRow("text와 answer_start의 수가 다른 정답")
        return list(zip(cell["text"], starts, strict=True))
    answers = [cell] if isinstance(cell, dict) else cell
    if not isinstance(answers, list) or not all(isinstance(answer, dict) for answer in answers):
        raise BadRow("text와 answer_start의 짝이 아닌 정답", f"정답 {str(cell)[:_SHOWN]!r}")
    return [(answer.get("text"), answer.get("answer_start")) for answer in answers]


def _placed(text: Any, start: Any, context: str) -> dict[str, Any]:
    if not isinstance(text, str) or not text.strip():
        raise BadRow("text가 빈 정답")
    if isinstance(start, bool) or not isinstance(start, int):
        raise BadRow("answer_start가 정수가 아닌 정답", f"answer_start {start!r}")
    # the row is kept in NFC: an answer starts after what precedes it, composed
    whole, text = unicodedata.normalize("NFC", context), unicodedata.normalize("NFC", text)
    start = len(unicodedata.normalize("NFC", context[:start])) if start >= 0 else start
    there = whole[start : start + len(text)] if start >= 0 else ""
    if there != text:
        raise BadRow(
            "지문의 answer_start 위치에 없는 정답",
            f"정답 {text[:_SHOWN]!r}, 그 위치의 텍스트 {there[:_SHOWN]!r}",
        )
    return {"text": text, "answer_start": start}
