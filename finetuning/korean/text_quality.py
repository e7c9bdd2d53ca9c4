"""Quality of generated Korean text: whether it ends, repeats itself, and keeps to Hangul and one speech level."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

_RUN_LENGTH = 8  # characters; shorter runs repeat in good Korean, as -습니다 does
_HANJA = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_LOOPING, _OFTEN = 0.3, 0.05
_SENTENCE_END = re.compile(r"[.!?…~\n]+")
_AFTER_WORDS = re.compile(r"[\s\"'”’)\]ㅋㅎㅠㅜ^;,]+$")
# Endings of polite (합쇼체, 해요체) and plain (해라체, 해체) sentences. Other sentences, such as nouns, are neither.
_POLITE = re.compile(r"(?:요|죠|니다|니까|십시오|시오)$")
_PLAIN = re.compile(
    r"(?:(?<!니)다|[았었였했겠]어|[가-힣]해|잖아|거야|이야|[가-힣]는데|거든|구나|냐|[했하]니|[하보]자|할게|할래|"
    r"하지|[겠었았]지|[가-힣]네|[아어]라)$"
)


@dataclass(frozen=True)
class GeneratedText:
    """A generated text.

    Attributes:
        text: The text without special tokens.
        ended: Whether the model ended it, before it reached the most tokens allowed.
    """

    text: str
    ended: bool


def repetition(text: str) -> float:
    """Return the share of runs of 8 characters that occurred before (seq-rep-n, Welleck et al. 2019)."""
    squeezed = " ".join(text.split())
    runs = [squeezed[start : start + _RUN_LENGTH] for start in range(len(squeezed) - _RUN_LENGTH + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def hangul_share(text: str) -> float:
    """Return the share of Hangul among the letters, 1 for a text without letters."""
    letters = [letter for letter in text if letter.isalpha()]
    return sum(map(_is_hangul, letters)) / len(letters) if letters else 1.0


def hanja_count(text: str) -> int:
    """Return the number of Chinese characters."""
    return sum(letter.isalpha() for letter in _HANJA.findall(text))  # not unassigned code points


def mixes_politeness(text: str) -> bool:
    """Return whether some sentences have polite endings (존댓말) and others plain ones (반말)."""
    return all(_speech_levels(text))


def is_polite(text: str) -> bool:
    """Return whether a text has a polite sentence (존댓말) and no plain one (반말)."""
    return _speech_levels(text) == (True, False)


def _speech_levels(text: str) -> tuple[bool, bool]:
    """Return whether a text has a sentence with a polite ending, and whether it has one with a plain ending."""
    sentences = [_AFTER_WORDS.sub("", part) for part in _SENTENCE_END.split(text)]
    polite = [bool(_POLITE.search(sentence)) for sentence in sentences]
    plain = [bool(_PLAIN.search(sentence)) and not _POLITE.search(sentence) for sentence in sentences]
    return any(polite), any(plain)


def is_broken(text: str) -> bool:
    """Return whether a text holds undecodable bytes (U+FFFD), jamo outside syllables, or control characters."""
    composed = unicodedata.normalize("NFC", text)
    return any(
        letter == "\ufffd" or "\u1100" <= letter <= "\u11ff" or unicodedata.category(letter) in {"Cc", "Cn", "Co"}
        for letter in composed
        if letter not in "\n\t\r"
    )


def metrics(generated: Sequence[GeneratedText]) -> dict[str, float]:
    """Compute the quality of generated texts.

    Args:
        generated: The texts.

    Returns:
        Shares from 0 to 1, none for no texts. `ended`, `polite`, `mixed_politeness` and `broken` are shares of the
        texts, `repetition` and `hangul` means over the texts, and `hanja` is a share of all letters.
    """
    if not generated:
        return {}
    texts = [one.text for one in generated]
    letters = sum(letter.isalpha() for text in texts for letter in text)
    return {
        "ended": sum(one.ended for one in generated) / len(generated),
        "repetition": sum(map(repetition, texts)) / len(texts),
        "hangul": sum(map(hangul_share, texts)) / len(texts),
        "hanja": sum(map(hanja_count, texts)) / max(1, letters),
        "polite": sum(map(is_polite, texts)) / len(texts),
        "mixed_politeness": sum(map(mixes_politeness, texts)) / len(texts),
        "broken": sum(map(is_broken, texts)) / len(texts),
    }


def remarks(generated: GeneratedText) -> list[str]:
    """Return remarks on one text in Korean, none if nothing is wrong with it."""
    text, found = generated.text, []
    if not generated.ended:
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
