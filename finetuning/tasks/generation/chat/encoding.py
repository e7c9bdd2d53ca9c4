"""Rendered conversations as tokens, cut to what the model takes."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

from finetuning.tasks.generation.chat.messages import Message
from finetuning.tasks.generation.chat.rendering import Rendered
from finetuning.tasks.generation.chat.shapes import SEGMENT, Conversation
from finetuning.tasks.generation.chat.template import ChatTemplate
from finetuning.tasks.text_encoding import read_beginning, read_end


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


def encode_rendered(rendered: Rendered, template: ChatTemplate, max_length: int) -> Encoded:
    """Encode a rendered conversation.

    Its last answer always ends with a trained token that ends a turn: the template's, or else the tokenizer's. Segments
    have no answers; they are left as they are.

    Args:
        rendered: Result of `render`.
        template: The chat template of a fast tokenizer.
        max_length: Most tokens.

    Returns:
        The example.
    """
    tokenizer = template.tokenizer
    text = read_beginning(tokenizer, rendered.text, max_length)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, places = list(encoded["input_ids"]), list(encoded["offset_mapping"])
    trained = [
        any(end > start_char and start < end_char for start_char, end_char in rendered.trained) for start, end in places
    ]
    last = max((position for position, is_trained in enumerate(trained) if is_trained), default=-1)
    is_whole = not rendered.trained or rendered.trained[-1][1] <= len(text)  # else the end of the answer is not read
    adds_end = is_whole and not rendered.is_verbatim
    if adds_end and last >= 0 and template.end is not None and ids[last] not in template.special_ids:
        end_id: Any = tokenizer.convert_tokens_to_ids(template.end)
        ids, trained = [*ids[: last + 1], int(end_id)], [*trained[: last + 1], True]
        places = [*places[: last + 1], (0, 0)]
    kept = slice(0, max_length)
    characters = trained_characters(ids[kept], trained[kept], places, template.special_ids)
    return Encoded(ids[kept], trained[kept], len(ids) * len(rendered.text) // max(1, len(text)), characters)


def trained_characters(
    input_ids: Sequence[int], trained: Sequence[bool], places: Sequence[tuple[int, int]], special: Set[int]
) -> int:
    """Count the characters that trained tokens stand for.

    Args:
        input_ids: Token ids.
        trained: Which of them have a loss. The first token never has: no token before it predicts it.
        places: (start, end) of each token in characters.
        special: Ids of tokens that stand for no text.

    Returns:
        The number of characters. One whose bytes are several tokens counts once.
    """
    count, done = 0, places[0][1] if places else 0
    for token, is_trained, (start, end) in list(zip(input_ids, trained, places, strict=False))[1:]:
        if is_trained and token not in special:
            count += max(0, end - max(start, done))
        done = max(done, end)
    return count


def prompt_of(conversation: Conversation, template: ChatTemplate) -> str:
    """Return the prompt for the next answer. An answer at the end is left out."""
    messages = asked(conversation.messages)
    if messages and messages[0]["role"] == SEGMENT:
        return "".join(segment["content"] for segment in messages)
    return template.prompt(messages, conversation.tools)


def prompt_ids(conversation: Conversation, template: ChatTemplate, room: int) -> list[int]:
    """Encode the prompt for the next answer.

    Args:
        conversation: The conversation. An answer at its end is left out.
        template: The chat template.
        room: Most tokens.

    Returns:
        Token ids. Whole turns are dropped from the oldest on until the rest fits. A single last turn that does not fit
        loses its beginning, since the end asks for the answer.
    """
    messages = list(asked(conversation.messages))
    system = [message for message in messages[:1] if message["role"] == "system"]
    turns = messages[len(system) :]
    while True:
        left = Conversation((*system, *turns), conversation.tools)
        prompt = read_end(template.tokenizer, prompt_of(left, template), room)
        ids = list(template.tokenizer(prompt, add_special_tokens=False)["input_ids"])
        questions = [place for place, message in enumerate(turns) if message["role"] == "user" and place > 0]
        if len(ids) <= room or not questions:
            return ids[-room:]
        turns = turns[questions[0] :]


def asked(messages: Sequence[Message]) -> Sequence[Message]:
    """Return a conversation without an answer at its end; of segments, without the trained ones there."""
    end = len(messages)
    if messages[-1]["role"] == SEGMENT:
        while end and messages[end - 1]["train"]:
            end -= 1
        return messages[:end]
    return messages[: end - 1] if messages[-1]["role"] == "assistant" else messages
