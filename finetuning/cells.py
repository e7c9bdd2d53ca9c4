"""A cell of a data source as text or as a label."""

from __future__ import annotations

import json
import re
from typing import Any

from exceptions import BadRow

ROLE_NAMES = {  # what messages call the roles of columns
    "text": "텍스트", "text_pair": "두 번째 텍스트", "label": "라벨", "tokens": "토큰", "question": "질문",
    "context": "지문", "answers": "정답", "messages": "대화", "conversations": "대화", "instruction": "지시문",
    "input": "입력", "output": "답", "prompt": "입력", "response": "출력",
}  # fmt: skip
_SHOWN_CHARACTERS = 40
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


def as_label(value: Any) -> str:
    """Return a label's cell as text without surrounding white space; "1.0" becomes "1"."""
    text = as_text(value).strip()
    whole = _WHOLE_FLOAT.fullmatch(text)
    return str(int(whole[1])) if whole else text


def check_is_text(role: str, cell: Any) -> None:
    """Check that a cell is not a list or an object, which nested JSON has in place of a text.

    Args:
        role: The column's role, for the message.
        cell: The cell as the source has it.

    Raises:
        BadRow: The cell is a list or an object.
    """
    if isinstance(cell, list | dict):
        raise BadRow(
            f"목록이나 객체인 {ROLE_NAMES.get(role, role)}(data.records에 그 안의 값까지의 경로를 쓰세요)",
            found=as_text(cell)[:_SHOWN_CHARACTERS],
        )
