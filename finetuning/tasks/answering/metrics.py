"""Scores of answers: EM and character F1 as in KorQuAD 1.0's script, EM and ROUGE-W as in KLUE-MRC's.

Each score is from 0 to 1 and the best over the gold answers. Without gold answers the empty answer is right.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher

_PUNCTUATION = dict.fromkeys(map(ord, string.punctuation))
_KORQUAD = {**_PUNCTUATION, **dict.fromkeys(map(ord, "'\"《》<>〈〉()‘’"), " ")}


def korquad_form(answer: str) -> str:
    """Return an answer in lower case, quotes and brackets as spaces, without ASCII punctuation and extra spaces."""
    return " ".join(answer.translate(_KORQUAD).lower().split())


def klue_form(answer: str) -> str:
    """Return an answer in lower case, without ASCII punctuation and extra spaces.

    KLUE-MRC's code is meant to replace quotes and brackets, too, but its pattern never matches: 《》 stay.
    """
    return " ".join(answer.lower().translate(_PUNCTUATION).split())


def exact_match(predicted: str, answers: Sequence[str]) -> float:
    """Return 1 if the answer equals a gold one in KorQuAD's form, or else 0."""
    return float(any(korquad_form(predicted) == korquad_form(answer) for answer in answers or ("",)))


def f1(predicted: str, answers: Sequence[str]) -> float:
    """Return the F1 of the multisets of characters, without spaces."""
    if not answers:
        return float(not korquad_form(predicted))
    return max(_overlap(korquad_form(predicted), korquad_form(answer)) for answer in answers)


def klue_exact_match(predicted: str, answers: Sequence[str]) -> float:
    """Return 1 if the answer equals a gold one in KLUE's form, or else 0."""
    return float(any(klue_form(predicted) == klue_form(answer) for answer in answers or ("",)))


def rouge_w(predicted: str, answers: Sequence[str]) -> float:
    """Return the F1 of the longest common substring, spaces included, which KLUE-MRC calls ROUGE-W."""
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
