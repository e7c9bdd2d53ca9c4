"""The shapes in which people have conversations, a row of the table each; a new shape is one more row.

A shape names the columns that it needs and those that it reads where they are there, and makes a conversation of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from exceptions import BadRow
from finetuning.cells import as_text, check_is_text
from finetuning.korean.column_names import CONTEXTS, PROMPTS, RESPONSES
from finetuning.tasks.generation.chat.messages import (
    Message,
    as_list,
    check_order,
    listed,
    read_messages,
    read_tools,
)

SEGMENT = "segment"  # role of a piece of text that is no message: axolotl's input_output
_TRUTHS = {"true": True, "false": False}


@dataclass(frozen=True)
class Conversation:
    """A conversation as the encoder reads it.

    Attributes:
        messages: The messages; see `chat.messages`.
        tools: JSON schemas of the functions that it may call.
    """

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Shape:
    """Columns that make a conversation.

    Attributes:
        needs: Role → names of its column, in lower case. All roles must be found.
        read: Cells by role → messages. Only cells that are not empty are handed in.
        reads: Roles that are read where they are there, beside those of every shape.
        target: Role of the answer, which prediction does without, or None.
        is_usual: Whether the names are so common that several of them in one source are not clear.
    """

    needs: Mapping[str, Sequence[str]]
    read: Callable[[Mapping[str, Any]], list[Message]]
    reads: Mapping[str, Sequence[str]] = field(default_factory=dict)
    target: str | None = None
    is_usual: bool = False


def _listed(cells: Mapping[str, Any]) -> list[Message]:
    return [*read_messages(cells["messages"]), *_answer(cells.get("response"))]


def _segments(cells: Mapping[str, Any]) -> list[Message]:
    made: list[Message] = []
    for segment in as_list(cells["segments"], "segments"):
        text, label = (segment.get("text"), segment.get("label")) if isinstance(segment, Mapping) else (None, None)
        if not (isinstance(text, str) and isinstance(label, bool)):
            raise BadRow("text와 label(true, false)이 없는 segments")
        made.append({"role": SEGMENT, "content": text, "train": label})
    if not made:
        raise BadRow("빈 segments")
    return made


def _alpaca(cells: Mapping[str, Any]) -> list[Message]:
    parts = [as_text(cells.get(role)).strip() for role in ("instruction", "input")]
    return [*_earlier(cells), *_turn("\n\n".join(part for part in parts if part), cells.get("output"))]


def _pair(cells: Mapping[str, Any]) -> list[Message]:
    """Read a prompt and a response: texts, or TRL's lists of messages."""
    if not _is_empty(cells.get("turn")) and as_text(cells["turn"]).strip() not in ("", "0"):
        raise BadRow("앞 턴이 다른 행에 있는 대화(T_ID)")
    prompt, response = cells["prompt"], cells.get("response")
    if listed(prompt) is not None:
        return [*_earlier(cells), *read_messages(prompt), *_answer(response)]
    for role in ("prompt", "response"):
        check_is_text(role, cells.get(role))
    parts = [as_text(cells.get("passage")).strip(), as_text(prompt)]
    return [*_earlier(cells), *_turn("\n\n".join(part for part in parts if part), response)]


def _answer(response: Any) -> list[Message]:
    """Read an answer behind messages: a text, or messages again; none for an empty cell."""
    if _is_empty(response):
        return []
    return read_messages(response) if listed(response) is not None else _turn("", response)[1:]


def _turn(question: str, answer: Any) -> list[Message]:
    asked: list[Message] = [{"role": "user", "content": question}]
    return asked if answer is None else [*asked, {"role": "assistant", "content": as_text(answer)}]


def _earlier(cells: Mapping[str, Any]) -> list[Message]:
    """Read Alpaca's `history`, pairs of a question and its answer."""
    if _is_empty(cells.get("history")):
        return []
    made: list[Message] = []
    for pair in as_list(cells["history"], "history"):
        if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise BadRow("질문과 답의 쌍이 아닌 history")
        made.extend(_turn(*pair))
    return made


LISTS = (
    "messages",
    "conversations",
    "conversation",
    "dialogue",
    "dialog",
    "chat",
    "turns",
    "대화",
    "대화목록",
    "메시지",
)
# Columns that change what a row means, and what to do about them.
REFUSED_COLUMNS = MappingProxyType({
    **dict.fromkeys(
        ("chosen", "rejected"),
        "좋은 답과 나쁜 답이 있는 선호 데이터입니다. --task preference로 학습하세요. 좋은 답만 학습하려면 rejected "
        "열을 지우고 --set data.response_column=chosen으로 지정하세요.",
    ),
    **dict.fromkeys(
        ("image", "images", "video", "videos", "audio", "audios"),
        "텍스트가 아닌 입력이 있는 데이터입니다. 텍스트만으로 의미가 통하면 그 열을 지우고, 아니면 그런 행을 빼세요.",
    ),
    **dict.fromkeys(
        ("weight", "loss_weight"), "행마다 다른 가중치는 쓸 수 없습니다. 가중치가 아니면 열 이름을 바꾸세요."
    ),
})  # fmt: skip
# Roles that every shape reads where they are there.
ALWAYS = MappingProxyType({
    "system": ("system", "system_prompt", "시스템", "시스템_프롬프트"),
    "tools": ("tools", "functions"),
    "liked": ("kto_tag", "label"),
})  # fmt: skip
SHAPES: Mapping[str, Shape] = MappingProxyType({
    "segments": Shape({"segments": ("segments",)}, _segments),
    "messages": Shape({"messages": LISTS}, _listed, {"response": ("generated",)}),  # as predict writes them
    "alpaca": Shape(
        {"instruction": ("instruction",), "output": ("output", "response")}, _alpaca,
        {"input": ("input", "context"), "history": ("history",)}, target="output",
    ),
    "pair": Shape(
        {"prompt": PROMPTS, "response": RESPONSES}, _pair,
        {"passage": CONTEXTS, "history": ("history",)}, target="response", is_usual=True,
    ),
    "clova": Shape({"prompt": ("text",), "response": ("completion",)}, _pair, {"turn": ("t_id",)}, target="response"),
})  # fmt: skip


def find_shape(available: Sequence[str], with_target: bool) -> tuple[str, dict[str, str]] | None:
    """Find the shape of a source.

    Args:
        available: Names of its columns.
        with_target: Whether the column of the answers must be there.

    Returns:
        The shape's name, and role → column for what is there; or None if it has no shape, or a role's column is
        not clear since several have a usual name.
    """
    for name, shape in SHAPES.items():
        found = {role: _columns(available, names) for role, names in shape.needs.items()}
        missing = [role for role, columns in found.items() if not columns and (with_target or role != shape.target)]
        if missing or (shape.is_usual and any(len(columns) > 1 for columns in found.values())):
            continue
        names = {role: columns[0] for role, columns in found.items() if columns}
        return name, names | optional_columns(name, available, set(names.values()))
    return None


def shape_of(cells: Mapping[str, Any]) -> str:
    """Return the name of the first shape whose needed roles a row has. The answer may be missing."""
    return next(
        name for name, shape in SHAPES.items() if all(role in cells for role in shape.needs if role != shape.target)
    )


def optional_columns(shape: str, available: Sequence[str], taken: set[str]) -> dict[str, str]:
    """Return role → column for what a shape reads where it is there.

    Args:
        shape: The shape's name.
        available: Names of the source's columns.
        taken: Columns that have a role already.

    Returns:
        The first column of a usual name for each role.
    """
    found = {}
    for role, names in {**SHAPES[shape].reads, **ALWAYS}.items():
        there = [column for column in _columns(available, names) if column not in taken]
        if there:
            found[role] = there[0]
    return found


def _columns(available: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the columns of these names in the order of the names."""
    found = [column for column in available if column.casefold() in names]
    return sorted(found, key=lambda column: names.index(column.casefold()))


def read_conversation(
    shape: str, cells: Mapping[str, Any], system_prompt: str | None, keeps_opening: bool
) -> Conversation:
    """Make a conversation of a row's cells.

    Args:
        shape: Name of the shape.
        cells: Cells by role.
        system_prompt: First message of conversations that have no system message, or None.
        keeps_opening: Whether a row that begins with the assistant is refused instead of losing that turn.

    Returns:
        The conversation.

    Raises:
        BadRow: It cannot be trained as its author meant.
    """
    _check_liked(cells.get("liked"))
    messages = SHAPES[shape].read({role: cell for role, cell in cells.items() if cell is not None})
    if messages and messages[0]["role"] == SEGMENT:
        return Conversation(tuple(messages))
    messages = _with_system(messages, as_text(cells.get("system")).strip() or None, system_prompt)
    start = sum(message["role"] == "system" for message in messages[:1])
    if not keeps_opening and len(messages) > start + 1 and messages[start]["role"] == "assistant":
        messages = [*messages[:start], *messages[start + 1 :]]
    check_order(messages)
    return Conversation(tuple(messages), tuple(read_tools(cells.get("tools"))))


def _with_system(messages: list[Message], column: str | None, setting: str | None) -> list[Message]:
    """Put the system text first: the conversation's own, its column's, or the setting's."""
    own = messages[0]["content"].strip() if messages[0]["role"] == "system" else None
    if own and column and own != column:
        raise BadRow("system 열과 다른 system 메시지가 있는 대화")
    text = own or column or setting
    rest = messages[1:] if messages[0]["role"] == "system" else messages
    return [{"role": "system", "content": messages[0]["content"] if own else text}, *rest] if text else rest


def _check_liked(cell: Any) -> None:
    """Refuse rows of KTO's data: an answer that was judged bad must not be trained."""
    liked = cell if isinstance(cell, bool) else _TRUTHS.get(cell.strip().casefold()) if isinstance(cell, str) else None
    if liked is not None:
        raise BadRow(
            "좋은 답인지 나쁜 답인지 표시한(KTO) 행(--task preference --set preference.loss=kto로 학습하거나, 좋은 "
            "답만 남기고 그 열을 지우세요)"
        )


def _is_empty(cell: Any) -> bool:
    return cell is None or cell != cell or (isinstance(cell, str | list) and not len(cell))
