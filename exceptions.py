"""One family of errors: what happened, where, what to do, and the exit code that says it to a script."""

from __future__ import annotations

import re
import unicodedata

# Digits, Latin letters and words are read aloud in Korean, so the particle after them follows that reading: 16 is 십육,
# LR is 엘알, tokenizer is 토크나이저. A word is told by how its ending is usually spelled in Hangul: title is 타이틀.
_ENDS_IN_CONSONANT = frozenset("013678LMNR")
_ENDS_IN_RIEUL = frozenset("178LR")
_WORD = re.compile(r"[A-Za-z]*[a-z][A-Za-z]*$")
_CLOSED_WORD = re.compile(
    r"(?:[lmn]|le|[mn]e|ng|type|(?:[aeiu]|(?<!o)o)p|[ao]ck|ook|ic|web|ut|(?<![eo])at|et|(?<!o)ot|(?<!b)it)$"
)
_RIEUL = 8
_CLOSING_MARKS = "\"'`)]}>»”’"


def with_particle(word: object, particles: str) -> str:
    """Returns the word with the particle that fits its last sound: `with_particle("모델", "을/를")` is `"모델을"`.

    `particles` is `after consonant/after vowel`, as in `은/는`, `이/가`, `과/와`, `으로/로`.
    """
    text = str(word)
    after_consonant, after_vowel = particles.split("/")
    last = unicodedata.normalize("NFC", text.rstrip(_CLOSING_MARKS))[-1:]  # a name from a Mac is decomposed
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


class FinetuningError(Exception):
    """An error that the user can act on: the message is for reading, without a traceback.

    what: what happened; where: the file, key or row; remedy: what to do about it. All in Korean.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.remedy = what, where, remedy

    def __str__(self) -> str:
        lines = [f"오류: {self.what}"]
        if self.where:
            lines.append(f"  위치: {self.where}")
        if self.remedy:
            lines.append(f"  해결: {self.remedy}")
        return "\n".join(lines)


class SettingsError(FinetuningError):
    """A flag or a setting is wrong."""

    exit_code = 2


class DataError(FinetuningError):
    """The data cannot be read, or is not what the task needs."""

    exit_code = 3


class ModelError(FinetuningError):
    """The model or tokenizer cannot be found, loaded or trained."""

    exit_code = 4


class ResourceError(FinetuningError):
    """Memory or disk ran out after every remedy."""

    exit_code = 5


class OutOfMemory(ResourceError):
    """Not even one example fits into memory, and the weights are as they were."""


class BadRow(Exception):
    """A row that its task cannot use; the message is the reason in Korean, in a few words, to be counted by.

    found: what this very row has, where the reason alone does not show the mistake.
    """

    def __init__(self, reason: str, found: str = "") -> None:
        super().__init__(reason)
        self.found = found


class StopRequested(BaseException):
    """The user asked the run to stop (SIGINT or SIGTERM); `exit_code` is 128 plus the signal's number.

    Like KeyboardInterrupt it is no Exception: code that explains a library's failures must not take it for one.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"signal {signal_number}")
        self.exit_code = 128 + signal_number
