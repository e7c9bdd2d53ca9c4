"""What kind of character a character is, as a person who reads Korean would say."""

from __future__ import annotations

import unicodedata

_OLD_HANGUL = (range(0x1100, 0x1200), range(0x3165, 0x318F), range(0xA960, 0xA980), range(0xD7B0, 0xD800))
_PRIVATE = range(0xE000, 0xF900)  # where older programs (한양 PUA) put old Hangul
_EMOJI = range(0x1F000, 0x20000)
_SHAPING = {"Cc", "Cf", "Mn", "Me", "Zs", "Zl", "Zp"}


def kind_of(letter: str) -> str:
    """Return the kind of a character in Korean; "" for one that has no shape of its own, such as a joiner."""
    code, category = ord(letter), unicodedata.category(letter)
    if category in _SHAPING:
        return ""
    if any(code in part for part in _OLD_HANGUL):
        return "옛한글"
    if "가" <= letter <= "힣" or "ㄱ" <= letter <= "ㅣ":
        return "한글"
    if code in _PRIVATE:
        return "사용자 정의 글자(옛 프로그램의 옛한글 등)"
    if unicodedata.name(letter, "").startswith("CJK"):
        return "한자"
    return "이모지와 기호" if code in _EMOJI or category[0] == "S" else "다른 글자"
