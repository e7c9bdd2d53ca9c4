"""Conversations as text, with the spans that are trained.

An answer is trained as it will be given: the text before it is the prompt that the model will see, and the span is all
that the model has to write, down to the token that ends its turn. One rendering holds all answers of a conversation
where a later turn leaves earlier ones as they were. A template that renders an earlier answer differently once more
turns follow (it may drop thoughts, or move the system text) costs a rendering for each such answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetuning.tasks.generation.chat.messages import Message
from finetuning.tasks.generation.chat.shapes import SEGMENT, Conversation
from finetuning.tasks.generation.chat.template import ChatTemplate, TemplateRefused

_SENTINEL = "쀍뛟쀍뛟"
_OPENED_TAG = re.compile(r"<([^<>/|\s]+)>\s*$")
_CLOSING_TAGS = re.compile(r"(\s*(</?[^<>\s]+>|<\|[^|<>]+\|>))*\s*")
_REACH = 64  # characters between the end of a prompt and its answer


@dataclass(frozen=True)
class Rendered:
    """A conversation as the model reads it.

    Attributes:
        text: Result of the chat template.
        trained: (start, end) of the characters that are trained.
        is_verbatim: Whether the author wrote the whole text, so that no end token is added.
    """

    text: str
    trained: tuple[tuple[int, int], ...]
    is_verbatim: bool = False


@dataclass(frozen=True)
class _Turn:
    """An answer behind its prompt: `text` down to the token that ends the turn, trained from `start` on."""

    text: str
    start: int


def render(
    conversation: Conversation, template: ChatTemplate, whole: bool = False, train_thoughts: bool = True
) -> list[Rendered]:
    """Render a conversation and mark what is trained.

    Args:
        conversation: The conversation. Its last message is an answer.
        template: The chat template.
        whole: Whether the whole text is trained instead of the answers.
        train_thoughts: Whether thoughts are trained; else they are context.

    Returns:
        One rendering or several.

    Raises:
        TemplateRefused: The template does not take the conversation, or leaves out a part of it.
    """
    messages, tools = conversation.messages, conversation.tools
    if messages[0]["role"] == SEGMENT:
        return [_joined(messages)]
    full = template.text(messages, tools)
    if whole:
        _check_complete(messages, tools, full, template)
        return [Rendered(full, ((0, len(full.rstrip())),))]
    found: list[tuple[str, list[tuple[int, int]]]] = [(full, [])]
    for number in reversed(range(len(messages))):
        message = messages[number]
        if message["role"] != "assistant" or not message.get("train", True):
            continue
        prompt = template.prompt(messages[:number], tools)
        answered = full if number == len(messages) - 1 else template.text(messages[: number + 1], tools)
        turn = _turn(messages[: number + 1], tools, prompt, answered, template)
        _check_complete(messages[: number + 1], tools, turn.text, template)
        start = turn.start if train_thoughts else _after_thought(turn, message)
        for text, spans in found:
            end = _end_in(text, turn.text, template)
            if end is not None:
                spans.append((start, end))
                break
        else:
            found.append((turn.text, [(start, len(turn.text))]))
    return [Rendered(text[: spans[0][1]], tuple(reversed(spans))) for text, spans in reversed(found) if spans]


def _joined(segments: Sequence[Message]) -> Rendered:
    text, spans = "", list[tuple[int, int]]()
    for segment in segments:
        start, text = len(text), text + segment["content"]
        if segment["train"]:
            spans.append((start, len(text)))
    return Rendered(text, tuple(spans), is_verbatim=True)


def _end_in(text: str, turn: str, template: ChatTemplate) -> int | None:
    """Return where a turn ends within a longer rendering, or None if that renders it differently.

    A turn without an end token of its own ends with the special token behind it, such as the next turn's heading.
    """
    if not text.startswith(turn):
        return None
    if _ends(turn, template) or len(text.rstrip()) == len(turn):
        return len(turn)
    following = template.special.match(text, len(turn) + len(text[len(turn) :]) - len(text[len(turn) :].lstrip()))
    return None if following is None else following.end()


def _ends(text: str, template: ChatTemplate) -> bool:
    return any(match.end() == len(text) for match in template.special.finditer(text, max(0, len(text) - _REACH)))


def _turn(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], prompt: str, answered: str, template: ChatTemplate
) -> _Turn:
    """Put an answer behind its prompt. Where the rendering with the answer has no such prompt, join the two."""
    answered = answered.removesuffix(template.after_end).rstrip()
    if answered.startswith(prompt):
        return _Turn(answered, len(prompt))
    answer = messages[-1]
    marked = template.text([*messages[:-1], {"role": "assistant", "content": _SENTINEL}], tools)
    place = marked.find(_SENTINEL)
    if place < 0 or answered[:place] != marked[:place]:
        return _Turn(answered, _common_prefix(prompt, answered))
    joint = _joint(prompt, answered, place, template)
    if joint is not None:
        return _Turn(prompt + answered[joint:], len(prompt))
    opened = _OPENED_TAG.search(prompt)
    if opened is not None and opened[0].strip() not in answered[:place][-_REACH:]:
        thought = answer.get("reasoning_content", "")
        text = answered[place:]
        if not thought:
            thought, text = _inline_thought(answer["content"], opened[1], text)
        return _Turn(f"{prompt}{thought.strip()}\n</{opened[1]}>\n\n{text.lstrip()}", len(prompt))
    return _Turn(answered, min(place, _common_prefix(prompt, answered)))


def _joint(prompt: str, answered: str, place: int, template: ChatTemplate) -> int | None:
    """Return where the prompt's last part, at least its last line or special token, ends before an answer's place."""
    stripped = prompt.rstrip()
    last = max((match.start() for match in template.special.finditer(stripped)), default=0)
    needed = len(stripped) - max(last, stripped.rfind("\n") + 1) + len(prompt) - len(stripped)
    for end in range(place, max(0, place - _REACH), -1):
        if answered[:end].endswith(prompt[-needed:]):
            return end
    return None


def _inline_thought(content: str, tag: str, text: str) -> tuple[str, str]:
    """Return the thought that a content begins with, and the answer's text without it."""
    begun = content.lstrip().removeprefix(f"<{tag}>")
    thought, closing, _ = begun.partition(f"</{tag}>")
    if not closing:
        return "", text
    return thought.strip(), text.rpartition(closing)[2] if closing in text else text


def _after_thought(turn: _Turn, message: Message) -> int:
    """Return where the answer begins behind a turn's thought and the marks that close it."""
    thought = message.get("reasoning_content", "").strip()
    place = turn.text.find(thought, turn.start) if thought else -1
    if place < 0:
        return turn.start
    closed = _CLOSING_TAGS.match(turn.text, place + len(thought))
    return place + len(thought) if closed is None else closed.end()


def _check_complete(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], text: str, template: ChatTemplate
) -> None:
    """Check that a rendering has all that the author wrote for its last answer."""
    if messages[0]["role"] == "system" and messages[0]["content"].strip() not in text:
        raise TemplateRefused("chat template이 출력하지 않는 system 메시지")
    if any(message["content"].strip() not in text for message in messages if message["role"] == "user"):
        raise TemplateRefused("chat template이 출력하지 않는 질문")
    if any(tool["function"]["name"] not in text for tool in tools):
        raise TemplateRefused("chat template이 출력하지 않는 도구(tools)")
    if any("tool_calls" in message for message in messages) and not template.shows_calls:
        raise TemplateRefused("chat template이 출력하지 않는 도구 호출(tool_calls)")
    last = messages[-1]
    if last["role"] == "assistant" and last.get("reasoning_content", "").strip() not in text:
        raise TemplateRefused("chat template이 출력하지 않는 생각(reasoning_content)")


def _common_prefix(first: str, second: str) -> int:
    low, high = 0, min(len(first), len(second))
    while low < high:  # texts may be millions of characters long
        middle = (low + high + 1) // 2
        low, high = (middle, high) if first[low:middle] == second[low:middle] else (low, middle - 1)
    return low
