"""Texts as windows of tokens: which characters each token stands for, each character in one window only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any

from finetuning.types import OF_TOKENS

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TextWindow:
    """A text, or as much of it as the model takes at once.

    Attributes:
        position: Position of the text among those given.
        inputs: Token columns, such as `input_ids`.
        starts: First character that each token stands for, -1 if there is none.
        ends: The character after its last one, -1 if there is none.
    """

    position: int
    inputs: dict[str, list[int]]
    starts: list[int]
    ends: list[int]


def text_windows(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> Iterator[TextWindow]:
    """Cut texts into windows that overlap by a quarter.

    Args:
        texts: The texts.
        tokenizer: Fast tokenizer.
        max_length: Most tokens of a window, special tokens included.

    Yields:
        The windows of each text in order. Each character counts in one of them.
    """
    encoded = tokenizer(
        list(texts), truncation=True, max_length=max_length, stride=max_length // 4, return_overflowing_tokens=True
    )
    assert encoded.encodings is not None
    columns: Any = {name: encoded[name] for name in OF_TOKENS if name in encoded}
    numbered = enumerate(encoded["overflow_to_sample_mapping"])
    for position, group in groupby(numbered, key=lambda pair: pair[1]):
        members = [number for number, _ in group]
        characters = [_characters_of(encoded.encodings[number], texts[position]) for number in members]
        for number, places in zip(members, _without_overlap(characters), strict=True):
            inputs = {name: values[number] for name, values in columns.items()}
            yield TextWindow(position, inputs, [start for start, _ in places], [end for _, end in places])


def _characters_of(encoding: Encoding, text: str) -> list[tuple[int, int]]:
    """Return (start, end) of each token without white space and earlier tokens' characters, (-1, -1) if empty."""
    places, done = [], 0
    for (start, end), special in zip(encoding.offsets, encoding.special_tokens_mask, strict=True):
        start = max(start, done)
        while start < end and text[start].isspace():
            start += 1
        if special or start >= end:
            places.append((-1, -1))
        else:
            places.append((start, end))
            done = end
    return places


def _without_overlap(windows: list[list[tuple[int, int]]]) -> Iterator[list[tuple[int, int]]]:
    """Divide the places of overlaps: the first half counts in the earlier window, the second in the later one."""
    edges = [0]
    for earlier, later in pairwise(windows):
        done = max(end for _, end in earlier)
        both = [start for start, _ in later if 0 <= start < done]
        edges.append(both[len(both) // 2] if both else max(done, 0))
    for places, low, high in zip(windows, edges, [*edges[1:], float("inf")], strict=True):
        yield [place if low <= place[0] < high else (-1, -1) for place in places]
