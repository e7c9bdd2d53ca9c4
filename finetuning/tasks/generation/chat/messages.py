"""Messages of conversations, from the spellings in which tools write them to one.

A message is a dict as chat templates read it: `role` (system, user, assistant or tool), `content`, and where there are
any `reasoning_content` (a thought), `tool_calls`, `tool_call_id` and `name`. `train: False` marks an answer without a
loss. It stays a dict, since it is kept as JSON and handed to templates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from exceptions import BadRow
from finetuning.cells import as_text, json_value, written_value
from finetuning.tasks.generation.chat.roles import ROLE_FIELDS, check_roles, known_role, role_field

Message = dict[str, Any]

_CONTENT_FIELDS = ("content", "value")
_THOUGHTS = ("reasoning_content", "thinking", "reasoning")
_TRAINED = ("train", "weight")
_KEPT = ("name", "tool_call_id")
_READ = frozenset((*ROLE_FIELDS, *_CONTENT_FIELDS, *_THOUGHTS, *_TRAINED, *_KEPT, "tool_calls", "function_call"))
_REFUSED = {  # fields that would change what is trained
    "train_detail": "글자마다 학습 여부를 정한 메시지(train_detail)",
    "images": "그림이 든 메시지", "audio": "소리가 든 메시지", "videos": "영상이 든 메시지",
}  # fmt: skip


def as_list(value: Any, name: str = "messages") -> list[Any]:
    """Return a cell that holds a list: as it is, or written as JSON or as Python writes it (pandas' CSV files).

    Args:
        value: The cell.
        name: What the cell holds, for the reason.

    Returns:
        The list.

    Raises:
        BadRow: The cell holds no list.
    """
    if isinstance(value, str):
        try:
            value = written_value(value)
        except ValueError:
            raise BadRow(f"JSON 목록이 아닌 {name}") from None
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list):
        raise BadRow(f"목록이 아닌 {name}")
    return value


def listed(value: Any) -> list[Any] | None:
    """Return the messages of a cell that is a list of them, or one message, and not a text; else None.

    A string counts if it begins as such a list and parses as one.
    """
    if isinstance(value, str):
        if not value.lstrip().startswith("[{"):
            return None
        try:
            value = as_list(value)
        except BadRow:
            return None
    items = [value] if isinstance(value, Mapping) else value
    return items if isinstance(items, list) and items and all(_is_message(item) for item in items) else None


def _is_message(item: Any) -> bool:
    return isinstance(item, Mapping) and any(isinstance(item.get(name), str) for name in ROLE_FIELDS)


def read_messages(value: Any) -> list[Message]:
    """Read a cell that holds messages.

    Args:
        value: A list of messages, or one as JSON or Python writes it.

    Returns:
        The messages.

    Raises:
        BadRow: A message has an unknown role, a content that is no text, or a field that cannot be honoured.
    """
    value = as_list(value)
    if not (value and all(isinstance(message, Mapping) for message in value)):
        raise BadRow("메시지의 목록이 아닌 messages")
    check_roles(value)
    return [_read(message) for message in value]


def unread_fields(messages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the name of each filled message field that `read_messages` does not read."""
    for message in messages:
        yield from (name for name, found in message.items() if name not in _READ and found not in (None, "", []))


def leading_answer(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return what an assistant says before the first question, or ""."""
    try:
        first = read_messages(list(messages[:2]))
    except BadRow:
        return ""
    turns = [message for message in first if message["role"] != "system"]
    return turns[0]["content"] if turns and turns[0]["role"] == "assistant" else ""


def _read(source: Mapping[str, Any]) -> Message:
    known = str(known_role(source[role_field(source)]))
    for name, reason in _REFUSED.items():
        if source.get(name):
            raise BadRow(reason)
    content = _text_of(next((source[name] for name in _CONTENT_FIELDS if source.get(name) is not None), ""))
    if known == "call":
        return {"role": "assistant", "content": "", "tool_calls": _calls(content), **_trained(source, "assistant")}
    message: Message = {"role": known, "content": content, **_trained(source, known)}
    message |= {name: as_text(source[name]) for name in _KEPT if source.get(name) not in (None, "")}
    thought = next((source[name] for name in _THOUGHTS if source.get(name)), None)
    if thought is not None:
        message["reasoning_content"] = _text_of(thought)
    calls = source.get("tool_calls") or source.get("function_call")
    if calls:
        message["tool_calls"] = _calls(calls)
    return message


def _text_of(content: Any) -> str:
    """Join a content's parts of text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadRow("content가 문자열이 아닌 메시지")
    parts = []
    for part in content:
        text = part.get("text") if isinstance(part, Mapping) else part
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        if kind != "text" or not isinstance(text, str):
            raise BadRow(f"문자열이 아닌 부분({kind})이 든 메시지")
        parts.append(text)
    return "".join(parts)


def _calls(value: Any) -> list[dict[str, Any]]:
    """Read calls of tools: OpenAI's list, one function_call, or JSON of one or several names and arguments."""
    if isinstance(value, str):
        try:
            value = json_value(value)
        except ValueError:
            raise BadRow("JSON이 아닌 도구 호출") from None
    calls = []
    for call in value if isinstance(value, list) else [value]:
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not (isinstance(function, Mapping) and isinstance(function.get("name"), str)):
            raise BadRow("이름이 없는 도구 호출")
        arguments = function.get("arguments", function.get("parameters", {}))
        if isinstance(arguments, str):
            try:
                arguments = json_value(arguments) if arguments.strip() else {}
            except ValueError:
                raise BadRow("인자(arguments)가 JSON이 아닌 도구 호출") from None
        if not isinstance(arguments, Mapping):
            raise BadRow("인자(arguments)가 객체가 아닌 도구 호출")
        made = {"type": "function", "function": {"name": function["name"], "arguments": _filled(arguments)}}
        calls.append({"id": call["id"], **made} if isinstance(call.get("id"), str) else made)
    return calls


def _filled(value: Any) -> Any:
    """Drop None from objects: tables of nested columns give every call the arguments of all others."""
    if isinstance(value, Mapping):
        return {name: _filled(item) for name, item in value.items() if item is not None}
    return value


def _trained(source: Mapping[str, Any], role: str) -> dict[str, bool]:
    """Return whether a message is trained, where it says so: `train`, or OpenAI's `weight` of 0 or 1."""
    train = source.get("train")
    if train is None and source.get("weight") is not None:
        weight = source["weight"]
        if weight not in (0, 1):
            raise BadRow(f"0도 1도 아닌 weight {weight}")
        train = bool(weight)
    if train is None:
        return {}
    if not isinstance(train, bool):
        raise BadRow("train이 true도 false도 아닌 메시지")
    if role != "assistant":
        if train and "train" in source:
            raise BadRow(f"학습하라고 표시한(train: true) {role} 메시지")
        return {}
    return {} if train else {"train": False}


def read_tools(value: Any) -> list[dict[str, Any]]:
    """Read the tools that a conversation may call: JSON schemas of functions, as a list or as JSON.

    Args:
        value: The cell.

    Returns:
        The tools in OpenAI's spelling; none for an empty cell.

    Raises:
        BadRow: A tool has no name.
    """
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        return []
    tools = []
    for tool in as_list(value, "tools"):
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not (isinstance(function, Mapping) and isinstance(function.get("name"), str)):
            raise BadRow("이름이 없는 도구(tools)")
        tools.append({"type": "function", "function": _filled(function)})
    return tools


def check_order(messages: Sequence[Message]) -> None:
    """Check that turns follow each other as in a conversation.

    Args:
        messages: The messages.

    Raises:
        BadRow: They do not, or a message is empty.
    """
    if any(message["role"] == "system" for message in messages[1:]):
        raise BadRow("system이 처음이 아닌 messages")
    turns = [message for message in messages if message["role"] != "system"]
    if not turns or turns[0]["role"] != "user":
        raise BadRow("user가 아니라 assistant로 시작하는 messages" if turns else "user가 없는 messages")
    before = "assistant"
    for message in turns:
        role = message["role"]
        follows = {
            "user": before == "assistant",
            "assistant": before != "assistant",
            "tool": before in ("call", "tool"),
        }
        if not follows[role]:
            raise BadRow("도구를 부르지 않았는데 tool이 나오는 messages" if role == "tool"
                         else "user와 assistant가 번갈아 나오지 않는 messages")  # fmt: skip
        if role != "tool" and not message["content"].strip() and "tool_calls" not in message:
            raise BadRow("빈 메시지가 있는 messages")
        before = "call" if "tool_calls" in message else role
