"""Listening to what a model says in Korean: whether it ends, repeats itself, keeps to Hangul and to one politeness."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

_SEQUENCE = 8  # characters: shorter runs come again in good Korean, as in -습니다.
_HANJA = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_LOOPING, _OFTEN = 0.3, 0.05
_SENTENCE_END = re.compile(r"[.!?…~\n]+")
_AFTER_WORDS = re.compile(r"[\s\"'”’)\]ㅋㅎㅠㅜ^;,]+$")
# Endings by which a sentence is polite (합쇼체, 해요체), or plain (해라체, 해체). Others, such as nouns, are neither.
_POLITE = re.compile(r"(?:요|죠|니다|니까|십시오|시오)$")
_PLAIN = re.compile(
    r"(?:(?<!니)다|[았었였했겠]어|[가-힣]해|잖아|거야|이야|[가-힣]는데|거든|구나|냐|[했하]니|[하보]자|할게|할래|"
    r"하지|[겠었았]지|[가-힣]네|[아어]라)$"
)


@dataclass(frozen=True)
class Said:
    """One generated text. ended: whether it ended by itself, before the most tokens that it was allowed."""

    text: str
    ended: bool


def repetition(text: str) -> float:
    """The share of a text's runs of 8 characters that were there before (seq-rep-n, Welleck et al. 2019)."""
    squeezed = " ".join(text.split())
    runs = [squeezed[start : start + _SEQUENCE] for start in range(len(squeezed) - _SEQUENCE + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def hangul_share(text: str) -> float:
    """The share of Hangul among a text's letters; 1 where it has none."""
    letters = [letter for letter in text if letter.isalpha()]
    return sum(map(_is_hangul, letters)) / len(letters) if letters else 1.0


def hanja_count(text: str) -> int:
    """How many Chinese characters are in a text, Hanja or Chinese."""
    return sum(letter.isalpha() for letter in _HANJA.findall(text))  # a place that Unicode has not filled is no letter


def mixes_politeness(text: str) -> bool:
    """Whether some of a text's sentences end politely (존댓말) and some plainly (반말), by their endings."""
    sentences = [_AFTER_WORDS.sub("", part) for part in _SENTENCE_END.split(text)]
    polite = [bool(_POLITE.search(sentence)) for sentence in sentences]
    plain = [bool(_PLAIN.search(sentence)) and not _POLITE.search(sentence) for sentence in sentences]
    return any(polite) and any(plain)


def is_broken(text: str) -> bool:
    """Whether a text has bytes that are no character (U+FFFD), jamo that never became a syllable, or controls."""
    composed = unicodedata.normalize("NFC", text)
    return any(
        letter == "\ufffd" or "\u1100" <= letter <= "\u11ff" or unicodedata.category(letter) in {"Cc", "Cn", "Co"}
        for letter in composed
        if letter not in "\n\t\r"
    )


def metrics(said: Sequence[Said]) -> dict[str, float]:
    """Shares over the texts; empty where none was generated.

    ended, mixed_politeness, broken: of the texts; repetition, hangul: the mean; hanja: of all letters.
    """
    if not said:
        return {}
    texts = [one.text for one in said]
    letters = sum(letter.isalpha() for text in texts for letter in text)
    return {
        "ended": sum(one.ended for one in said) / len(said),
        "repetition": sum(map(repetition, texts)) / len(texts),
        "hangul": sum(map(hangul_share, texts)) / len(texts),
        "hanja": sum(map(hanja_count, texts)) / max(1, letters),
        "mixed_politeness": sum(map(mixes_politeness, texts)) / len(texts),
        "broken": sum(map(is_broken, texts)) / len(texts),
    }


def remarks(said: Said) -> list[str]:
    """What is to be remarked of one text beside it, in Korean; nothing of a text that is well."""
    text, found = said.text, []
    if not said.ended:
        found.append("끝나지 않음")
    if (share := repetition(text)) > _LOOPING:
        found.append(f"반복 {100 * share:.0f}%")
    if (count := hanja_count(text)) > _OFTEN * len(text):
        found.append(f"한자 {count:,}자")
    if mixes_politeness(text):
        found.append("존댓말과 반말이 섞임")
    if is_broken(text):
        found.append("깨진 글자")
    return found


def _is_hangul(letter: str) -> bool:
    return "가" <= letter <= "힣" or "ㄱ" <= letter <= "ㆎ" or "\u1100" <= letter <= "\u11ff"
