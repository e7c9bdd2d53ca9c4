"""Cuts before particles and around marks and numbers, so that tokens end where entities and answers do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PARTICLES = """
은 는 이 가 을 를 의 에 에서 에게 에게는 에는 에도 에서는 에서도 에서의 께서 한테 으로 로 으로는 로는 으로서 로서
으로써 로써 으로부터 로부터 와 과 와의 과의 와는 과는 하고 이랑 랑 도 만 만의 만에 부터 까지 까지는 까지의 보다 처럼
이나 나 이라고 라고 이라는 라는 이란 란 이라 이다 이었다 였다 이며 이고 이자 이던 이지만 인 인데 입니다
들 들이 들은 들을 들의 들에게 들과 간 마다 씩 쯤 째 여
"""
_WHITE = "[▁ ]?"  # a space, or SentencePiece's mark for it, stays with what follows, as in the vocabulary
_LETTER = r"[\p{L}\p{N}]"
CUT = "|".join(
    (
        rf"(?<={_LETTER})(?:{'|'.join(sorted(_PARTICLES.split(), key=len, reverse=True))})(?!{_LETTER})",
        rf"{_WHITE}[\p{{P}}\p{{S}}&&[^▁]]",
        rf"{_WHITE}\p{{N}}+",
    )
)


def cut_words(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make a tokenizer cut before a word's particle (조사) and around marks and numbers. It is saved that way.

    Entities and answers end before the particle, and a subword such as `일부터` holds both. A needless cut (`고양|이`)
    costs one token. Cuts around every syllable would never straddle an end, but models know subwords and learned less
    that way. A tokenizer with these cuts, or with a byte-level step that adds a space, is left as it is.

    Args:
        tokenizer: Fast tokenizer to change.
    """
    from tokenizers import Regex, pre_tokenizers

    backend: Any = tokenizer.backend_tokenizer
    existing = json.loads(backend.to_str())["pre_tokenizer"]
    steps = existing["pretokenizers"] if existing and existing["type"] == "Sequence" else [existing] if existing else []
    was_cut = any(step["type"] == "Split" and step["pattern"] == {"Regex": CUT} for step in steps)
    if was_cut or any(step["type"] == "ByteLevel" and step["add_prefix_space"] for step in steps):
        return  # ByteLevel would put a space before every piece
    cut = pre_tokenizers.Split(Regex(CUT), "isolated")
    before = [backend.pre_tokenizer] if existing else []
    byte_level = any(step["type"] == "ByteLevel" for step in steps)  # it passes on bytes, not letters
    backend.pre_tokenizer = pre_tokenizers.Sequence([cut, *before] if byte_level else [*before, cut])
