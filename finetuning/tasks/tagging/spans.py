"""Entities as spans of characters: from tags, to tags, and through NFC."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from exceptions import BadRow


class Span(NamedTuple):
    """An entity: text[start:end] is of the kind `label`, without B- or I-."""

    start: int
    end: int
    label: str


def join_tokens(tokens: Sequence[str]) -> tuple[str, list[int]]:
    """Join tokens to a text.

    Args:
        tokens: Words, or single characters, spaces and decomposed syllables among them.

    Returns:
        The text, with a space between words and nothing between characters, and the start of each token in it.
    """
    characters = all(len(token) == 1 or len(unicodedata.normalize("NFC", token)) == 1 for token in tokens)
    separator = "" if characters else " "
    starts, position = [], 0
    for token in tokens:
        starts.append(position)
        position += len(token) + len(separator)
    return separator.join(tokens), starts


def read_iob2(tags: Iterable[str]) -> list[Span]:
    """Read tags as spans of positions.

    Args:
        tags: O, B-kind or I-kind.

    Returns:
        The entities in order.

    Raises:
        BadRow: A tag has another form, or an I- continues no entity of its kind.
    """
    spans: list[Span] = []
    before = "O"
    for position, tag in enumerate(tags):
        prefix, dash, label = tag.partition("-")
        if tag != "O" and not (prefix in {"B", "I"} and dash and label):
            raise BadRow("O, B-이름, I-이름이 아닌 태그")
        if prefix == "I":
            if before not in {f"B-{label}", tag}:
                raise BadRow("앞의 개체를 잇지 않는 I- 태그")
            spans[-1] = spans[-1]._replace(end=position + 1)
        elif prefix == "B":
            spans.append(Span(position, position + 1, label))
        before = tag
    return spans


def write_iob2(spans: Iterable[Span], text: str) -> list[str]:
    """Return the tag of every character but white space, as KLUE's evaluation does."""
    tags = ["O"] * len(text)
    for start, end, label in spans:
        tags[start:end] = [f"B-{label}", *[f"I-{label}"] * (end - start - 1)]
    return [tag for tag, character in zip(tags, text, strict=True) if not character.isspace()]


def trimmed(spans: Iterable[Span], text: str) -> list[Span]:
    """Return spans without white space at their ends, which no token holds. Spans of white space are dropped."""
    found = []
    for start, end, label in spans:
        inside = text[start:end]
        start, end = start + len(inside) - len(inside.lstrip()), end - len(inside) + len(inside.rstrip())
        if start < end:
            found.append(Span(start, end, label))
    return found


def composed(spans: Iterable[Span], text: str) -> list[Span]:
    """Move spans of a text to its NFC, where a syllable of three jamo is one character."""
    if unicodedata.is_normalized("NFC", text):
        return list(spans)
    begins, ends = _places(text)
    return [Span(begins[start], ends[end - 1], label) for start, end, label in spans]


def _places(text: str) -> tuple[list[int], list[int]]:
    """Return the start and the end, in NFC, of what each character becomes a part of."""
    begins: list[int] = []
    ends: list[int] = []
    piece, done = "", 0
    for character in text:
        whole = unicodedata.normalize("NFC", piece + character)
        alone = unicodedata.normalize("NFC", piece) + unicodedata.normalize("NFC", character)
        if piece and (unicodedata.combining(character) or whole != alone):
            piece += character
        else:
            done += len(unicodedata.normalize("NFC", piece))
            piece = character
        begins.append(done)
        ends.append(done)  # set below, once the piece is complete
        length = len(unicodedata.normalize("NFC", piece))
        for position in range(len(begins) - len(piece), len(begins)):
            ends[position] = done + length
    return begins, ends
