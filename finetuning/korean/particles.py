"""Korean particles (조사): the form that follows the last sound of a word."""

from __future__ import annotations

import re
import unicodedata

# Digits, Latin letters and words are read aloud in Korean, so the particle after them follows that reading: 16 is 십육,
# LR is 엘알, tokenizer is 토크나이저. A word's last sound is guessed from its ending: title is 타이틀.
_ENDS_IN_CONSONANT = frozenset("013678LMNR")
_ENDS_IN_RIEUL = frozenset("178LR")
_WORD = re.compile(r"[A-Za-z]*[a-z][A-Za-z]*$")
_CLOSED_WORD = re.compile(
    r"(?:[lmn]|le|[mn]e|ng|type|(?:[aeiu]|(?<!o)o)p|[ao]ck|ook|ic|web|ut|(?<![eo])at|et|(?<!o)ot|(?<!b)it)$"
)
_RIEUL = 8
_CLOSING_MARKS = "\"'`)]}>»”’"


def with_particle(word: object, particles: str) -> str:
    """Return a word with the particle that fits its last sound: `with_particle("모델", "을/를")` is `"모델을"`.

    Args:
        word: Any value, shown by `str`.
        particles: The form after a consonant and the one after a vowel, such as `은/는`, `이/가` or `으로/로`.

    Returns:
        The word and the particle.
    """
    text = str(word)
    after_consonant, after_vowel = particles.split("/")
    last = unicodedata.normalize("NFC", text.rstrip(_CLOSING_MARKS))[-1:]  # names of files are decomposed on macOS
    if "가" <= last <= "힣":
        final = (ord(last) - ord("가")) % 28
        closed, rieul = final != 0, final == _RIEUL
    elif (match := _WORD.search(text.rstrip(_CLOSING_MARKS))) and len(match[0]) > 1:
        word_read = match[0].casefold()
        closed, rieul = _CLOSED_WORD.search(word_read) is not None, word_read.endswith(("l", "le"))
    else:
        last = last.upper()
        closed, rieul = last in _ENDS_IN_CONSONANT, last in _ENDS_IN_RIEUL
    if after_consonant == "으로" and rieul:
        return text + after_vowel
    return text + (after_consonant if closed else after_vowel)
