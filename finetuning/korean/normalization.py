"""Unicode normalization: NFC always; zero-width characters and full-width forms as the settings say."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

KINDS = {
    "nfc": "NFC로 정규화한 값",
    "zero_width": "제로폭 문자를 제거한 값",
    "full_width": "전각 문자를 반각으로 바꾼 값",
}
# Zero-width space, word joiner, byte order mark and soft hyphen. The joiners U+200C and U+200D shape emoji and other
# scripts, so they are removed only at the start and after Hangul, Latin letters, digits and white space.
_ZERO_WIDTH = re.compile(
    "[\u00ad\u200b\u2060\ufeff]+|(?:^|(?<=[\\s0-9A-Za-z\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3]))[\u200c\u200d]+"
)
_WIDE_OR_NARROW = re.compile("[\u3000\uff01-\uffee]")


def _ordinary_widths() -> dict[int, str]:
    """Map the code points of full-width and half-width forms to ordinary characters: Ａ to A, ﾡ to ㄱ."""
    found = {}
    for code in (0x3000, *range(0xFF01, 0xFFEF)):
        kind, _, target = unicodedata.decomposition(chr(code)).partition(" ")
        if kind in {"<wide>", "<narrow>"} and target:
            found[code] = chr(int(target, 16))
    return found


_ORDINARY = _ordinary_widths()


@dataclass(frozen=True)
class Normalizer:
    """Normalizes texts to NFC, and more if asked.

    NFC composes what macOS decomposes (conjoining jamo ㅎㅏㄴ to 한). Compatibility jamo, as in ㅋㅋ and ㅠㅠ, stay.

    Attributes:
        zero_width: Whether zero-width characters are removed.
        full_width: Whether full-width and half-width forms become ordinary characters.
    """

    zero_width: bool = False
    full_width: bool = False

    @classmethod
    def of(cls, names: Sequence[str]) -> Normalizer:
        """Build the normalizer that `data.normalize` names."""
        return cls(zero_width="zero_width" in names, full_width="full_width" in names)

    def text(self, text: str) -> tuple[str, tuple[str, ...]]:
        """Return the normalized text, and the kinds of change (keys of KINDS) that were made."""
        if text.isascii():
            return text, ()
        kinds = []
        found = unicodedata.normalize("NFC", text)
        if found != text:
            kinds.append("nfc")
        if self.full_width and _WIDE_OR_NARROW.search(found):
            found, before = unicodedata.normalize("NFC", found.translate(_ORDINARY)), found
            kinds += ["full_width"] if found != before else []
        if self.zero_width and not found.isprintable() and _ZERO_WIDTH.search(found):  # the cheap test first
            found, before = _without_zero_width(found), found
            kinds += ["zero_width"] if found != before else []
        return found, tuple(kinds)

    def value(self, value: Any) -> tuple[Any, tuple[str, ...]]:
        """Normalize every text in a value of JSON; see `text`."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list | tuple):
            made = [self.value(item) for item in value]
            return [item for item, _ in made], _union(kinds for _, kinds in made)
        if isinstance(value, dict):
            made = [self.value(item) for item in value.values()]
            return dict(zip(value, (item for item, _ in made), strict=True)), _union(kinds for _, kinds in made)
        return value, ()


def _without_zero_width(text: str) -> str:
    """Remove zero-width characters until nothing changes: a removal may bring others, or jamo, together."""
    while True:
        found = unicodedata.normalize("NFC", _ZERO_WIDTH.sub("", text))
        if found == text:
            return found
        text = found


def _union(parts: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(kind for kinds in parts for kind in kinds))


def change_shown(before: str, after: str) -> str:
    """Return a few characters of both texts from where they first differ, invisible ones as escapes."""
    start = next((n for n, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), len(after))
    start = max(0, start - 4)
    return f"'{_visible(before[start : start + 14])}' → '{_visible(after[start : start + 10])}'"


def _visible(text: str) -> str:
    """Return the text with escapes for characters that are invisible or look the same after NFC."""
    return "".join(
        f"\\u{ord(letter):04x}"
        if unicodedata.category(letter) in {"Cf", "Cc"} or unicodedata.normalize("NFC", letter) != letter
        else letter
        for letter in text
    )
