"""How answers are scored: EM and character F1 as KorQuAD 1.0's script counts them, EM and ROUGE-W as KLUE-MRC has them.

Each score is from 0 to 1, the best over the gold answers; no gold answers mean that the empty answer is the right one.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher

_PUNCTUATION = dict.fromkeys(map(ord, string.punctuation))
_KORQUAD = {**_PUNCTUATION, **dict.fromkeys(map(ord, "'\"《》<>〈〉()‘’"), " ")}


def korquad_form(answer: str) -> str:
    """Quotes and brackets as spaces, lower case, without ASCII punctuation, one space between words."""
    return " ".join(answer.translate(_KORQUAD).lower().split())


def klue_form(answer: str) -> str:
    """Lower case, without ASCII punctuation, one space between words.

    KLUE-MRC's code means to make quotes and brackets spaces too, but its pattern never matches: 《》 stay in.
    """
    return " ".join(answer.lower().translate(_PUNCTUATION).split())


def exact_match(predicted: str, answers: Sequence[str]) -> float:
    """1 where the answer is a gold one in KorQuAD's form."""
    return float(any(korquad_form(predicted) == korquad_form(answer) for answer in answers or ("",)))


def f1(predicted: str, answers: Sequence[str]) -> float:
    """The F1 of the characters, spaces not counted, as bags."""
    if not answers:
        return float(not korquad_form(predicted))
    return max(_overlap(korquad_form(predicted), korquad_form(answer)) for answer in answers)


def klue_exact_match(predicted: str, answers: Sequence[str]) -> float:
    """1 where the answer is a gold one in KLUE's form."""
    return float(any(klue_form(predicted) == klue_form(answer) for answer in answers or ("",)))


def rouge_w(predicted: str, answers: Sequence[str]) -> float:
    """The F1 of the longest run of characters, spaces counted, that both have: what KLUE-MRC calls ROUGE-W."""
    return max(_longest_run(klue_form(predicted), klue_form(answer)) for answer in answers or ("",))


def _overlap(predicted: str, answer: str) -> float:
    found, wanted = Counter(predicted.replace(" ", "")), Counter(answer.replace(" ", ""))
    same = (found & wanted).total()
    return 2 * same / (found.total() + wanted.total()) if same else 0.0


def _longest_run(predicted: str, answer: str) -> float:
    if not answer:
        return float(not predicted)
    run = SequenceMatcher(None, predicted, answer).find_longest_match().size
    return 2 * run / (len(predicted) + len(answer))
