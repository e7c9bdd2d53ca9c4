"""Entities as spans of characters: out of tags, as tags again, and where a text's normal form moves them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from exceptions import BadRow


class Span(NamedTuple):
    """An entity: text[start:end] is a `label`, which has no B- or I-."""

    start: int
    end: int
    label: str


def join_tokens(tokens: Sequence[str]) -> tuple[str, list[int]]:
    """The text that tokens make, and where each of them begins.

    Where every token of a row is one character (spaces are tokens then too, and a syllable may be decomposed), the
    text is the tokens as they follow each other; else the tokens are words, with a space between.
    """
    characters = all(len(token) == 1 or len(unicodedata.normalize("NFC", token)) == 1 for token in tokens)
    separator = "" if characters else " "
    starts, position = [], 0
    for token in tokens:
        starts.append(position)
        position += len(token) + len(separator)
    return separator.join(tokens), starts


def read_iob2(tags: Iterable[str]) -> list[Span]:
    """Spans of the tags' own positions; BadRow where they are not IOB2: every entity begins with its B-."""
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
    """The tag of every character of a text that can be seen: white space has none, as in KLUE's own evaluation."""
    tags = ["O"] * len(text)
    for start, end, label in spans:
        tags[start:end] = [f"B-{label}", *[f"I-{label}"] * (end - start - 1)]
    return [tag for tag, character in zip(tags, text, strict=True) if not character.isspace()]


def trimmed(spans: Iterable[Span], text: str) -> list[Span]:
    """The spans without white space at their ends, which no token could say; those of nothing else are left out."""
    found = []
    for start, end, label in spans:
        inside = text[start:end]
        start, end = start + len(inside) - len(inside.lstrip()), end - len(inside) + len(inside.rstrip())
        if start < end:
            found.append(Span(start, end, label))
    return found


def composed(spans: Iterable[Span], text: str) -> list[Span]:
    """Spans of a text where its NFC has them: a syllable in three letters (자모) is one character there."""
    if unicodedata.is_normalized("NFC", text):
        return list(spans)
    begins, ends = _places(text)
    return [Span(begins[start], ends[end - 1], label) for start, end, label in spans]


def _places(text: str) -> tuple[list[int], list[int]]:
    """For each character, where the piece of NFC that it goes into begins and ends."""
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
        ends.append(done)  # set below, when the piece is whole
        length = len(unicodedata.normalize("NFC", piece))
        for position in range(len(begins) - len(piece), len(begins)):
            ends[position] = done + length
    return begins, ends
