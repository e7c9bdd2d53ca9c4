"""Tokens that say something about characters of their own: a tokenizer that cuts where entities end, and windows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any

from exceptions import ModelError

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerBase

_PARTICLES = """
은 는 이 가 을 를 의 에 에서 에게 에게는 에는 에도 에서는 에서도 에서의 께서 한테 으로 로 으로는 로는 으로서 로서
으로써 로써 으로부터 로부터 와 과 와의 과의 와는 과는 하고 이랑 랑 도 만 만의 만에 부터 까지 까지는 까지의 보다 처럼
이나 나 이라고 라고 이라는 라는 이란 란 이라 이다 이었다 였다 이며 이고 이자 이던 이지만 인 인데 입니다
들 들이 들은 들을 들의 들에게 들과 간 마다 씩 쯤 째 여
"""
_WHITE = "[▁ ]?"  # a space, or what SentencePiece writes for it, stays with what follows: the vocabulary has them so
_LETTER = r"[\p{L}\p{N}]"
CUT = "|".join(
    (
        rf"(?<={_LETTER})(?:{'|'.join(sorted(_PARTICLES.split(), key=len, reverse=True))})(?!{_LETTER})",
        rf"{_WHITE}[\p{{P}}\p{{S}}&&[^▁]]",
        rf"{_WHITE}\p{{N}}+",
    )
)


@dataclass(frozen=True)
class Window:
    """A text, or as much of it as the model takes at once.

    position: of its text among those given; inputs: token columns; starts, ends: the characters that each token is
    the one to speak for, -1 where there are none.
    """

    position: int
    inputs: dict[str, list[int]]
    starts: list[int]
    ends: list[int]


def cut_into_pieces(tokenizer: PreTrainedTokenizerBase, task: str) -> None:
    """Makes a tokenizer cut before a word's particle (조사) and around marks and numbers, and keep that when saved.

    Entities and answers end before the particle, and a subword such as `일부터` holds both. A cut too many, as in
    `고양|이`, costs a token. Cutting around every syllable leaves nothing to straddle, but models know subwords: they
    learned less with it. A tokenizer that was cut before stays as it is.
    """
    from tokenizers import Regex, pre_tokenizers

    if not tokenizer.is_fast:
        raise ModelError(
            f"{task}에는 fast tokenizer가 필요합니다. 이 모델에는 없습니다.",
            where="model.name",
            remedy="tokenizer.json이 있는 모델을 고르세요.",
        )
    backend: Any = tokenizer.backend_tokenizer
    existing = json.loads(backend.to_str())["pre_tokenizer"]
    steps = existing["pretokenizers"] if existing and existing["type"] == "Sequence" else [existing] if existing else []
    was_cut = any(step["type"] == "Split" and step["pattern"] == {"Regex": CUT} for step in steps)
    if was_cut or any(step["type"] == "ByteLevel" and step["add_prefix_space"] for step in steps):
        return  # the latter would put a space before every piece
    cut = pre_tokenizers.Split(Regex(CUT), "isolated")
    before = [backend.pre_tokenizer] if existing else []
    byte_level = any(step["type"] == "ByteLevel" for step in steps)  # what it hands on are bytes, not letters
    backend.pre_tokenizer = pre_tokenizers.Sequence([cut, *before] if byte_level else [*before, cut])


def windows_of(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> Iterator[Window]:
    """Texts as windows of max_length tokens, which overlap by a quarter; each character counts in one of them."""
    encoded = tokenizer(
        list(texts), truncation=True, max_length=max_length, stride=max_length // 4, return_overflowing_tokens=True
    )
    assert encoded.encodings is not None
    columns: Any = {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}
    numbered = enumerate(encoded["overflow_to_sample_mapping"])
    for position, group in groupby(numbered, key=lambda pair: pair[1]):
        members = [number for number, _ in group]
        spoken = [_spoken_for(encoded.encodings[number], texts[position]) for number in members]
        for number, places in zip(members, _shared_out(spoken), strict=True):
            inputs = {name: values[number] for name, values in columns.items()}
            yield Window(position, inputs, [start for start, _ in places], [end for _, end in places])


def _spoken_for(encoding: Encoding, text: str) -> list[tuple[int, int]]:
    """The characters of each token that no token before it has, without white space; (-1, -1) where there are none."""
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


def _shared_out(windows: list[list[tuple[int, int]]]) -> Iterator[list[tuple[int, int]]]:
    """The windows' places without those that another has: of an overlap the first half is the earlier window's."""
    edges = [0]
    for earlier, later in pairwise(windows):
        done = max(end for _, end in earlier)
        both = [start for start, _ in later if 0 <= start < done]
        edges.append(both[len(both) // 2] if both else max(done, 0))
    for places, low, high in zip(windows, edges, [*edges[1:], float("inf")], strict=True):
        yield [place if low <= place[0] < high else (-1, -1) for place in places]
