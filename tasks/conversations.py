"""Conversations for language models: the shapes people have, one form, and which of their tokens are trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exceptions import BadRow, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]

# What a model without a chat template of its own is given: headings, and the tokenizer's end token after an answer.
PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'user' %}{{ '### 질문\\n' + message['content'] + '\\n\\n' }}"
    "{% else %}{{ '### 답변\\n' + message['content'] + eos_token + '\\n\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '### 답변\\n' }}{% endif %}"
)
_ROLES = {
    "system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant",
    "chatgpt": "assistant", "bot": "assistant", "model": "assistant",
}  # fmt: skip


@dataclass(frozen=True)
class Rendered:
    """A conversation as the model reads it: its text, and the (start, end) characters that are trained."""

    text: str
    trained: tuple[tuple[int, int], ...]


def to_messages(row: Mapping[str, Any], system_prompt: str | None) -> list[Message]:
    """The conversation in a row of any of the shapes: messages, conversations, instruction, or prompt.

    Raises BadRow where roles are unknown, out of order, or a message is empty.
    """
    if "messages" in row or "conversations" in row:
        messages = _from_list(row.get("messages", row.get("conversations")))
    elif "instruction" in row:
        question = "\n\n".join(str(row[role]).strip() for role in ("instruction", "input") if row.get(role))
        messages = _pair(question, row.get("output"))
    else:
        messages = _pair(str(row["prompt"]), row.get("response"))
    _check(messages)
    if system_prompt and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system_prompt})
    return messages


def _pair(question: str, answer: Any) -> list[Message]:
    asked: list[Message] = [{"role": "user", "content": question}]
    return asked if answer is None else [*asked, {"role": "assistant", "content": str(answer)}]


def _from_list(value: Any) -> list[Message]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise BadRow("JSON 목록이 아닌 messages") from None
    if not (isinstance(value, list) and value and all(isinstance(message, dict) for message in value)):
        raise BadRow("메시지의 목록이 아닌 messages")
    messages: list[Message] = []
    for message in value:
        role, content = message.get("role", message.get("from")), message.get("content", message.get("value"))
        if role not in _ROLES:
            raise BadRow(f"모르는 role '{role}'")
        if not isinstance(content, str):
            raise BadRow("content가 글자가 아닌 메시지")
        messages.append({"role": _ROLES[role], "content": content})
    return messages


def _check(messages: Sequence[Message]) -> None:
    turns = [message for message in messages if message["role"] != "system"]
    if any(message["role"] == "system" for message in messages[1:]):
        raise BadRow("system이 처음이 아닌 messages")
    if not turns or turns[0]["role"] != "user":
        raise BadRow("user가 아니라 assistant로 시작하는 messages" if turns else "user가 없는 messages")
    for number, message in enumerate(turns):
        if message["role"] != ("user", "assistant")[number % 2]:
            raise BadRow("user와 assistant가 번갈아 나오지 않는 messages")
        if not message["content"].strip():
            raise BadRow("빈 메시지가 있는 messages")


def render(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, whole: bool) -> list[Rendered]:
    """The conversation through the chat template, with the answers (or the whole of it) marked as trained.

    What an answer is comes from rendering prefixes: the text up to an answer as it is asked for, against the text with
    the answer. A template may render an earlier answer otherwise once there are later turns (thoughts left out, say):
    then that answer gets a rendering of its own, as it was when it was given, so there may be several.
    """
    if whole:
        text = _apply(messages, tokenizer, False)
        return [Rendered(text, ((0, len(text.rstrip())),))]
    found: list[Rendered] = []
    text, spans = "", list[tuple[int, int]]()
    for number in reversed(range(len(messages))):
        if messages[number]["role"] != "assistant":
            continue
        asked, answered = _apply(messages[:number], tokenizer, True), _apply(messages[: number + 1], tokenizer, False)
        if not text.startswith(answered):
            if spans:
                found.append(Rendered(text, tuple(reversed(spans))))
            text, spans = answered, []
        spans.append((_common_prefix(asked, answered), len(answered.rstrip())))
    return [*found, Rendered(text, tuple(reversed(spans)))][::-1]


def prompt_of(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> str:
    """The text that asks for the next answer: an answer at the end is left out."""
    asked = messages[:-1] if messages[-1]["role"] == "assistant" else messages
    return _apply(asked, tokenizer, True)


def _apply(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, asks: bool) -> str:
    try:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=asks))
    except Exception as error:  # whatever a template raises, Jinja's own errors among it
        raise ModelError(
            f"chat template이 이 대화를 받지 않습니다: {str(error).splitlines()[0] if str(error) else error}",
            where=f"대화의 role: {', '.join(message['role'] for message in messages)}",
            remedy="text_generation.chat_template에 다른 Jinja 파일을 지정하거나 대화의 모양을 고치세요.",
        ) from error


def _common_prefix(first: str, second: str) -> int:
    for position, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return position
    return min(len(first), len(second))


def encode_rendered(
    rendered: Rendered, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> tuple[list[int], list[bool], int]:
    """(input_ids, which of them are trained, how many there were before the cut to max_length).

    The end of the last answer is always a trained token that ends a turn: the tokenizer's end token where the template
    has none.
    """
    encoded = tokenizer(rendered.text, add_special_tokens=False, return_offsets_mapping=True)
    ids: list[int] = list(encoded["input_ids"])
    trained = [
        any(end > start_char and start < end_char for start_char, end_char in rendered.trained)
        for start, end in encoded["offset_mapping"]
    ]
    last = max((position for position, is_trained in enumerate(trained) if is_trained), default=-1)
    if last >= 0 and ids[last] not in tokenizer.all_special_ids and tokenizer.eos_token_id is not None:
        ids, trained = [*ids[: last + 1], tokenizer.eos_token_id], [*trained[: last + 1], True]
    return ids[:max_length], trained[:max_length], len(ids)


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that ends an answer: the last one trained of a rendered turn."""
    messages: list[Message] = [{"role": "user", "content": "안녕"}, {"role": "assistant", "content": "네"}]
    ids, trained, _ = encode_rendered(render(messages, tokenizer, whole=False)[-1], tokenizer, 1 << 30)
    last = max((position for position, is_trained in enumerate(trained) if is_trained), default=None)
    return None if last is None else ids[last]
