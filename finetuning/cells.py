"""A cell of a data source as text or as a label."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from exceptions import BadRow, DataError

ROLE_NAMES = {  # what messages call the roles of columns
    "text": "텍스트", "text_pair": "두 번째 텍스트", "label": "라벨", "tokens": "토큰", "question": "질문",
    "context": "지문", "answers": "정답", "messages": "대화", "conversations": "대화", "instruction": "지시문",
    "input": "입력", "output": "답", "prompt": "입력", "response": "출력", "group": "그룹", "segments": "segments",
    "head": "지배소", "chosen": "좋은 답", "rejected": "나쁜 답", "judged": "답의 평가",
    "passages": "문서 목록", "positives": "정답 문서", "negatives": "오답 문서",
    "positive_scores": "정답 문서의 교사 점수", "negative_scores": "오답 문서의 교사 점수",
}  # fmt: skip
SPLIT_NAMES = {"train": "학습", "validation": "검증", "test": "테스트"}
TEXT_ROLES = ("text", "text_pair", "prompt", "messages", "question", "context", "passages")  # what a model is given
_SHOWN_CHARACTERS = 40
# What a terminal acts on instead of showing it: control characters but for the tab, marks of writing direction, line
# separators, and halves of surrogate pairs. The joiners of emoji and of scripts are none of these.
_UNSHOWABLE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_UNSHOWABLE_WITHIN_LINES = re.compile(_UNSHOWABLE.pattern.replace("\x0a-", "\x0b-"))
_WHOLE_FLOAT = re.compile(r"([+-]?[0-9]{1,30})\.0+")


def as_text(value: Any) -> str:
    """Return a cell as text.

    Args:
        value: A string, None, or any other value of JSON.

    Returns:
        Strings unchanged, "" for None and NaN, whole floats as integers (pandas reads a column of integers
        with gaps as floats), and other values as JSON.
    """
    if isinstance(value, str):
        return value
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value, ensure_ascii=False)


def as_number(cell: Any, what: str, where: str, remedy: str) -> float:
    """Return a cell as a number.

    Args:
        cell: The cell.
        what: What is said where it is no number, in Korean.
        where: File and row, as a message names them.
        remedy: What to do then.

    Returns:
        The number.

    Raises:
        DataError: It is none.
    """
    try:
        return float(cell)
    except (TypeError, ValueError):
        raise DataError(f"{what}: {as_text(cell)[:_SHOWN_CHARACTERS]}", where=where, remedy=remedy) from None


def json_value(text: str) -> Any:
    """Return the value that a cell spells as JSON; raise ValueError if it is none, or nested too deeply to read."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(str(error)) from error


def written_value(text: str) -> Any:
    """Return the value that a cell spells as JSON, or as Python does (pandas writes lists so); else ValueError."""
    try:
        return json_value(text)
    except ValueError:
        try:
            return ast.literal_eval(text.strip())
        except (SyntaxError, MemoryError, RecursionError) as error:
            raise ValueError(str(error)) from error


def printable(text: str, keep_lines: bool = False) -> str:
    """Return a text for a terminal: control and direction characters as escapes such as `\\x1b` and `\\u202e`.

    Args:
        text: Any text, such as a cell of the data or what a model wrote.
        keep_lines: Whether line breaks stay, for a text that is shown by itself. Elsewhere one would forge a line.

    Returns:
        The text; Korean, emoji and tabs are unchanged.
    """
    return (_UNSHOWABLE_WITHIN_LINES if keep_lines else _UNSHOWABLE).sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    if character in "\n\r":
        return "\\n" if character == "\n" else "\\r"
    return f"\\x{ord(character):02x}" if ord(character) < 0x100 else f"\\u{ord(character):04x}"


def as_label(value: Any) -> str:
    """Return a label's cell as text without surrounding white space; "1.0" becomes "1"."""
    text = as_text(value).strip()
    whole = _WHOLE_FLOAT.fullmatch(text)
    return str(int(whole[1])) if whole else text


def listed(cell: Any, what: str) -> list[Any]:
    """Return the items of a cell that is a list, or a list as JSON.

    Args:
        cell: The cell as it is in the source.
        what: What the items are, for the message.

    Returns:
        The items.

    Raises:
        BadRow: The cell is no list.
    """
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        try:
            cell = json_value(cell)
        except ValueError:
            raise BadRow(f"JSON 목록이 아닌 {what}") from None
    if not isinstance(cell, list):
        raise BadRow(f"목록이 아닌 {what}")
    return cell


def check_is_text(role: str, cell: Any) -> None:
    """Check that a cell is not a list or an object, which nested JSON has in place of a text.

    Args:
        role: The column's role, for the message.
        cell: The cell as it is in the source.

    Raises:
        BadRow: The cell is a list or an object.
    """
    if isinstance(cell, list | dict):
        raise BadRow(
            f"목록이나 객체인 {ROLE_NAMES.get(role, role)}(data.records에 그 안의 값까지의 경로를 쓰세요)",
            found=as_text(cell)[:_SHOWN_CHARACTERS],
        )
