"""Attachment scores: UAS and LAS over words, and KLUE-DP's macro-F1 of both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from finetuning.tasks.parsing.trees import Arc
from finetuning.tasks.tagging.entities import macro_f1

# The first fifteen of KLUE-baseline's list (klue_baseline/data/klue_dp.py). Its score takes all others as one class.
_KLUE_RELATIONS = (
    "NP", "NP_AJT", "VP", "NP_SBJ", "VP_MOD", "NP_OBJ", "AP", "NP_CNJ", "NP_MOD", "VNP", "DP", "VP_AJT", "VNP_MOD",
    "NP_CMP", "VP_SBJ",
)  # fmt: skip
_CLASS_OF = {relation: place for place, relation in enumerate(_KLUE_RELATIONS)}
_OTHER, _WRONG_HEAD = len(_KLUE_RELATIONS), len(_KLUE_RELATIONS) + 1  # further classes
_TRUE, _SAID, _BOTH = range(3)

Sentences = Sequence[Sequence[Arc]]


def attachment(truth: Sentences, said: Sentences) -> dict[str, float]:
    """Score parsed sentences.

    Args:
        truth: The arcs of each sentence.
        said: The predicted arcs of the same words.

    Returns:
        `uas` and `las`, the shares of words with the right head, and with the right head and relation;
        `klue_uas_macro_f1`, the mean F1 over numbers of heads, and `klue_las_macro_f1`, that over relations.
    """
    from sklearn.metrics import f1_score

    heads = [[arc.head for arcs in side for arc in arcs] for side in (truth, said)]
    pairs = [pair for sentence in zip(truth, said, strict=True) for pair in zip(*sentence, strict=True)]
    return {
        "uas": float(np.mean([true.head == one.head for true, one in pairs])),
        "las": float(np.mean([true[:2] == one[:2] for true, one in pairs])),
        "klue_uas_macro_f1": float(f1_score(*heads, average="macro", zero_division=0)),
        "klue_las_macro_f1": macro_f1(relation_counts(truth, said).sum(0)),
    }


def relation_counts(truth: Sentences, said: Sentences) -> np.ndarray:
    """Count each sentence's words by KLUE's classes, which add up over sentences.

    A predicted relation to a wrong head is of a class of its own, which is never true.

    Args:
        truth: The arcs of each sentence.
        said: The predicted arcs of the same words.

    Returns:
        True, predicted and rightly predicted words, (sentences, classes, 3) int64.
    """
    counts = np.zeros((len(truth), _WRONG_HEAD + 1, 3), np.int64)
    for row, sentence in enumerate(zip(truth, said, strict=True)):
        for true, one in zip(*sentence, strict=True):
            wanted = _CLASS_OF.get(true.relation, _OTHER)
            found = _CLASS_OF.get(one.relation, _OTHER) if one.head == true.head else _WRONG_HEAD
            counts[row, wanted, _TRUE] += 1
            counts[row, found, _SAID] += 1
            counts[row, wanted, _BOTH] += wanted == found
    return counts
