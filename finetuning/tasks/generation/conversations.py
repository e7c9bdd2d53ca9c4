"""Conversations for language models: from common shapes to messages, text and tokens, and which are trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exceptions import BadRow, ModelError, first_line_of
from finetuning.cells import as_text, check_is_text
from finetuning.tasks.generation.time_limit import LimitPassed, limited
from finetuning.tasks.text_encoding import read_beginning, read_end

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]

# Chat template for a model without one: headings, and the tokenizer's end token after an answer.
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

_LONGEST_S, _MOST_BYTES = 10.0, 1 << 30  # for one rendering, which takes less than a millisecond
_PLAIN = ("instruction", "input", "output", "prompt", "response")


@dataclass(frozen=True)
class Rendered:
    """A conversation as the model reads it.

    Attributes:
        text: Result of the chat template.
        trained: (start, end) of the characters that are trained.
    """

    text: str
    trained: tuple[tuple[int, int], ...]


def to_messages(row: Mapping[str, Any], system_prompt: str | None) -> list[Message]:
    """Bring a row of any shape into a list of messages.

    Args:
        row: Cells by role: `messages`, `conversations`, `instruction` (with `input`, `output`), or `prompt` (with
            `response`).
        system_prompt: First message of conversations that have no system message, or None.

    Returns:
        Messages with `role` (system, user or assistant) and `content`.

    Raises:
        BadRow: A role is unknown or out of order, or a message is empty.
    """
    for role in _PLAIN:
        check_is_text(role, row.get(role))
    if "messages" in row or "conversations" in row:
        messages = _from_list(row.get("messages", row.get("conversations")))
    elif "instruction" in row:
        parts = [as_text(row.get(role)).strip() for role in ("instruction", "input")]
        messages = _pair("\n\n".join(part for part in parts if part), row.get("output"))
    else:
        messages = _pair(as_text(row["prompt"]), row.get("response"))
    _check(messages)
    if system_prompt and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system_prompt})
    return messages


def _pair(question: str, answer: Any) -> list[Message]:
    asked: list[Message] = [{"role": "user", "content": question}]
    return asked if answer is None else [*asked, {"role": "assistant", "content": as_text(answer)}]


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
        if not isinstance(role, str) or role not in _ROLES:
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
    """Render a conversation with the chat template and mark what is trained.

    An answer is what the rendering of the conversation up to it adds to the prompt for it. A template may render an
    earlier answer differently once later turns follow (it may drop reasoning, for example). Such an answer gets a
    rendering of its own, as it was when it was given.

    Args:
        messages: The conversation.
        tokenizer: Tokenizer with a chat template.
        whole: Whether the whole text is trained instead of the answers.

    Returns:
        One rendering or several.
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
    """Return the prompt for the next answer. An answer at the end is left out."""
    asked = messages[:-1] if messages[-1]["role"] == "assistant" else messages
    return _apply(asked, tokenizer, True)


def prompt_ids(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, room: int) -> list[int]:
    """Encode the prompt for the next answer.

    Args:
        messages: The conversation. An answer at its end is left out.
        tokenizer: Tokenizer with a chat template.
        room: Most tokens.

    Returns:
        Token ids. Whole turns are dropped from the oldest on until the rest fits. A single last turn that does not fit
        loses its beginning, since the end asks for the answer.
    """
    asked = list(messages[:-1] if messages[-1]["role"] == "assistant" else messages)
    system = [message for message in asked[:1] if message["role"] == "system"]
    turns = asked[len(system) :]
    while True:
        prompt = read_end(tokenizer, prompt_of([*system, *turns], tokenizer), room)
        ids: list[int] = list(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        if len(ids) <= room or len(turns) == 1:
            return ids[-room:]
        turns = turns[2:]


def _apply(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, asks: bool) -> str:
    try:
        with limited(_LONGEST_S, _MOST_BYTES):
            return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=asks))
    except LimitPassed as error:
        raise ModelError(
            f"chat template이 대화 하나를 만드는 데 {_LONGEST_S:.0f}초나 {_MOST_BYTES // 2**30} GiB를 넘어 멈췄습니다.",
            where=f"대화의 role: {', '.join(message['role'] for message in messages)}",
            remedy="끝나지 않는 반복이 있는지 보고, text_generation.chat_template에 다른 Jinja 파일을 지정하세요.",
        ) from error
    except Exception as error:  # a template may raise anything, not only Jinja's errors
        raise ModelError(
            f"chat template이 이 대화를 받지 않습니다: {first_line_of(error)}",
            where=f"대화의 role: {', '.join(message['role'] for message in messages)}",
            remedy="text_generation.chat_template에 다른 Jinja 파일을 지정하거나 대화의 모양을 고치세요.",
        ) from error


def _common_prefix(first: str, second: str) -> int:
    low, high = 0, min(len(first), len(second))
    while low < high:  # texts may be millions of characters long
        middle = (low + high + 1) // 2
        low, high = (middle, high) if first[low:middle] == second[low:middle] else (low, middle - 1)
    return low


@dataclass(frozen=True)
class Encoded:
    """An example's tokens, cut to what the model takes.

    Attributes:
        input_ids: Token ids.
        trained: Which tokens have a loss.
        full_length: Number of tokens before the cut, estimated where the end of a very long text was not tokenized.
        characters: Number of characters that the trained tokens stand for, without special tokens.
    """

    input_ids: list[int]
    trained: list[bool]
    full_length: int
    characters: int


def encode_rendered(rendered: Rendered, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
    """Encode a rendered conversation.

    The last answer always ends with a trained token that ends a turn: the tokenizer's end token if the template has
    none.

    Args:
        rendered: Result of `render`.
        tokenizer: Fast tokenizer.
        max_length: Most tokens.

    Returns:
        The example.
    """
    text = read_beginning(tokenizer, rendered.text, max_length)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, places = list(encoded["input_ids"]), list(encoded["offset_mapping"])
    trained = [
        any(end > start_char and start < end_char for start_char, end_char in rendered.trained) for start, end in places
    ]
    last = max((position for position, is_trained in enumerate(trained) if is_trained), default=-1)
    is_whole = not rendered.trained or rendered.trained[-1][1] <= len(text)  # else the end of the answer is not read
    if is_whole and last >= 0 and ids[last] not in tokenizer.all_special_ids and tokenizer.eos_token_id is not None:
        ids, trained = [*ids[: last + 1], tokenizer.eos_token_id], [*trained[: last + 1], True]
        places = [*places[: last + 1], (0, 0)]
    kept = slice(0, max_length)
    full_length = len(ids) * len(rendered.text) // max(1, len(text))
    return Encoded(
        ids[kept], trained[kept], full_length, trained_characters(ids[kept], trained[kept], places, tokenizer)
    )


def trained_characters(
    input_ids: Sequence[int], trained: Sequence[bool], places: Sequence[tuple[int, int]],
    tokenizer: PreTrainedTokenizerBase,
) -> int:  # fmt: skip
    """Count the characters that trained tokens stand for.

    Args:
        input_ids: Token ids.
        trained: Which of them have a loss. The first token never has: no token before it predicts it.
        places: (start, end) of each token in characters.
        tokenizer: Tokenizer whose special tokens are not counted.

    Returns:
        The number of characters. One whose bytes are several tokens counts once.
    """
    special = set(tokenizer.all_special_ids)
    count, done = 0, places[0][1] if places else 0
    for token, is_trained, (start, end) in list(zip(input_ids, trained, places, strict=False))[1:]:
        if is_trained and token not in special:
            count += max(0, end - max(start, done))
        done = max(done, end)
    return count


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the token that ends an answer, the last trained one of a rendered turn, or None."""
    messages: list[Message] = [{"role": "user", "content": "안녕"}, {"role": "assistant", "content": "네"}]
    encoded = encode_rendered(render(messages, tokenizer, whole=False)[-1], tokenizer, 1 << 30)
    last = max((position for position, is_trained in enumerate(encoded.trained) if is_trained), default=None)
    return None if last is None else encoded.input_ids[last]
