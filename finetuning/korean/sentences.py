"""Where the sentences of a text begin: by kiwipiepy, which knows Korean endings, or by punctuation and lines."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib.util import find_spec

from exceptions import SettingsError

Starts = Callable[[str], Sequence[int]]  # text → the character where each sentence begins, in order

KIWI, PUNCTUATION, TOKENS = "kiwi", "punctuation", "tokens"
SENTENCE_END = r"""[.!?…。]+["'”’)\]」』]*\s+|\s*\n\s*"""


def splitter_here() -> str:
    """Return the best way to divide texts that is there: kiwipiepy, or else punctuation."""
    return KIWI if find_spec("kiwipiepy") is not None else PUNCTUATION


def sentence_starts(way: str) -> Starts:
    """Return a function from a text to where its sentences begin.

    Args:
        way: KIWI, PUNCTUATION, or TOKENS, which knows no sentences.

    Returns:
        The function. It loads Kiwi's model (about a second) where it is made.

    Raises:
        SettingsError: kiwipiepy is asked for and not installed.
    """
    if way == TOKENS:
        return lambda text: ()
    if way == PUNCTUATION:
        end = re.compile(SENTENCE_END)
        return lambda text: [found.end() for found in end.finditer(text)]
    try:
        from kiwipiepy import Kiwi
    except ImportError:
        raise SettingsError(
            "문장을 나누는 kiwipiepy 패키지가 없습니다.",
            where="text_classification.sentence_ends: kiwi",
            remedy="`pip install kiwipiepy -c requirements-lock.txt` 명령으로 설치하세요. 새로 학습할 때는 "
            "`punctuation`으로 바꾸어도 됩니다.",
        ) from None
    kiwi = Kiwi(num_workers=1)
    return lambda text: [sentence.start for sentence in kiwi.split_into_sents(text)]
