"""From the tokens' log-probabilities to entities: Viterbi's search for the likeliest tags that are legal IOB2."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from finetuning.tasks.tagging.spans import Span

_LEAST = -1e30  # in place of the logarithm of 0, whose sums would not say which sequence is the less unlikely
_AT_ONCE = 2**22  # log-probabilities that are searched at once, 8 bytes each
_FREE = -1


class TaggedToken(NamedTuple):
    """A token of a text and its predicted tag.

    Attributes:
        start: First character that the token stands for.
        end: The character after its last one.
        tag: Its tag's id in the text's likeliest legal sequence of tags.
        score: The probability of that tag.
        raw: The id of its likeliest tag, without regard to other tokens.
    """

    start: int
    end: int
    tag: int
    score: float
    raw: int


def tagged(
    places: Sequence[Sequence[tuple[int, int]]], scores: Sequence[np.ndarray], label_names: Sequence[str]
) -> list[list[TaggedToken]]:
    """Tag the tokens of texts with the likeliest legal sequences of tags.

    Args:
        places: Start and end of each token of each text.
        scores: Log-probabilities (tokens, tags) of each text.
        label_names: Tags in the order of their ids.

    Returns:
        The tokens of each text.
    """
    found = []
    for spans, part, tags in zip(places, scores, likeliest_legal(scores, label_names), strict=True):
        chances = np.exp(np.take_along_axis(part, tags[:, None], 1))[:, 0]
        values = zip(spans, tags.tolist(), chances.tolist(), part.argmax(-1).tolist(), strict=True)
        found.append([TaggedToken(start, end, tag, chance, raw) for (start, end), tag, chance, raw in values])
    return found


def decode(tokens: Sequence[TaggedToken], label_names: Sequence[str]) -> list[tuple[Span, float]]:
    """Read a text's tags as entities. Those of a kind that has no B- begin with I-.

    Args:
        tokens: The tokens, in the text's order.
        label_names: Tags in the order of their ids.

    Returns:
        The entities, each with the mean probability of its tokens.
    """
    found: list[tuple[Span, list[float]]] = []
    before = ""
    for start, end, tag, score, _ in tokens:
        prefix, _, label = label_names[tag].partition("-")
        if prefix == "I" and label == before:
            span, scores = found[-1]
            found[-1] = (span._replace(end=end), [*scores, score])
        elif label:
            found.append((Span(start, end, label), [score]))
        before = label
    return [(span, float(np.mean(scores))) for span, scores in found]


def raw_tags(tokens: Sequence[TaggedToken], text: str, label_names: Sequence[str]) -> list[str]:
    """Return the tag of every character but white space as the model gave it, without regard to the tags before it.

    Args:
        tokens: The tokens, in the text's order.
        text: The row's text.
        label_names: Tags in the order of their ids.

    Returns:
        A tag for each character that is no white space.
    """
    tags = ["O"] * len(text)
    for token in tokens:
        name = label_names[token.raw]
        inside = f"I-{name[2:]}" if name.startswith("B-") else name
        tags[token.start : token.end] = [name, *[inside] * (token.end - token.start - 1)]
    return [tag for tag, character in zip(tags, text, strict=True) if not character.isspace()]


def likeliest_legal(scores: Sequence[np.ndarray], label_names: Sequence[str]) -> list[np.ndarray]:
    """Find the legal sequence of tags with the largest sum of log-probabilities.

    Where the likeliest tag of each token makes a legal sequence, it is that one. Time grows with tokens × tags, not
    with the square of the tags, since only the tag before an I- is not free.

    Args:
        scores: Log-probabilities (tokens, tags) of each text.
        label_names: Tags in the order of their ids.

    Returns:
        Tag ids (tokens,) int64 of each text.
    """
    begin_of = _begins(label_names)
    found = [part.argmax(-1) for part in scores]
    illegal = [number for number, tags in enumerate(found) if not _is_legal(tags, begin_of)]
    for numbers in _groups(sorted(illegal, key=lambda number: len(scores[number])), scores):
        searched = _search([scores[number] for number in numbers], begin_of)
        for number, tags in zip(numbers, searched, strict=True):
            found[number] = tags
    return found


def _begins(label_names: Sequence[str]) -> np.ndarray:
    """Return for each I- the id of the B- of its kind, and -1 for a tag that may follow any.

    A kind without a B- begins with its I-, as in the older scheme IOB1.
    """
    ids = {name: position for position, name in enumerate(label_names)}
    return np.array([ids.get(f"B-{name[2:]}", _FREE) if name.startswith("I-") else _FREE for name in label_names])


def _is_legal(tags: np.ndarray, begin_of: np.ndarray) -> bool:
    """Return whether each I- of a sequence, (tokens,), follows the B- or the I- of its kind."""
    before, needed = np.concatenate([[_FREE], tags[:-1]]), begin_of[tags]
    return bool(np.all((needed == _FREE) | (before == tags) | (before == needed)))


def _groups(numbers: Sequence[int], scores: Sequence[np.ndarray]) -> Iterator[Sequence[int]]:
    """Cut texts, shortest first, into groups that `_AT_ONCE` holds when padded to their longest, or of one text."""
    start = 0
    for end in range(1, len(numbers) + 1):
        if end == len(numbers) or (end + 1 - start) * scores[numbers[end]].size > _AT_ONCE:
            yield numbers[start:end]
            start = end


def _search(scores: Sequence[np.ndarray], begin_of: np.ndarray) -> list[np.ndarray]:
    """Search the texts of a group side by side; see `likeliest_legal`."""
    lengths = np.array([len(part) for part in scores])
    steps, texts, tags = int(lengths.max()), len(scores), len(begin_of)
    padded = np.zeros((steps, texts, tags))
    for text, part in enumerate(scores):
        padded[: len(part), text] = np.maximum(np.nan_to_num(part.astype(np.float64), nan=_LEAST), _LEAST)
    last = np.empty((steps, texts, tags), dtype=np.int16)  # the best tag before each tag
    total = np.where(begin_of == _FREE, padded[0], -np.inf)  # of the best sequence that ends in each tag
    for step in range(1, steps):
        reached, before = _reached(total, begin_of)
        goes_on = (step < lengths)[:, None]
        total = np.where(goes_on, reached + padded[step], total)
        last[step] = np.where(goes_on, before, np.arange(tags))
    path = np.empty((steps, texts), dtype=np.int64)
    path[-1] = total.argmax(-1)
    for step in range(steps - 1, 0, -1):
        path[step - 1] = last[step, np.arange(texts), path[step]]
    return [path[:length, text] for text, length in enumerate(lengths)]


def _reached(total: np.ndarray, begin_of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest sum before each tag and the tag that it ends in, the lower id where two are equal."""
    inside = np.flatnonzero(begin_of != _FREE)
    begins = begin_of[inside]
    last = np.repeat(total.argmax(-1)[:, None], total.shape[1], axis=1)
    begun, gone_on = total[:, begins], total[:, inside]
    is_begun = (begun > gone_on) | ((begun == gone_on) & (begins < inside))
    last[:, inside] = np.where(is_begun, begins, inside)
    return np.take_along_axis(total, last, 1), last
