"""EM, F1 and ROUGE-W against the published rules derived another way, and against scores by hand."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from finetuning.tasks.answering import metrics as answer_metrics

ANSWERS = st.text(alphabet="가나 ab'\"《》<()‘’.,%", max_size=7)


def korquad_words(answer: str) -> list[str]:
    """KorQuAD's form by steps of its script: marks to spaces, lower case, no punctuation, words."""
    spaced = re.sub(r"['\"《》<>〈〉()‘’]", " ", answer).lower()
    return re.sub(r"[!-/:-@\[-`{-~]", "", spaced).split()


def best_matching(left: str, right: str) -> int:
    """How many characters of both can be paired, one by one."""
    rest = list(right)
    return sum(1 for letter in left if letter in rest and not rest.remove(letter))  # type: ignore[func-returns-value]


def longest_common_run(left: str, right: str) -> int:
    runs = [left[a:b] for a, b in itertools.combinations(range(len(left) + 1), 2)]
    return max((len(run) for run in runs if run in right), default=0)


@hypothesis_settings(max_examples=300, deadline=None)
@given(predicted=ANSWERS, gold=st.lists(ANSWERS, min_size=1, max_size=3))
def test_scores_are_those_of_the_published_rules(predicted: str, gold: list[str]) -> None:
    words, golds = korquad_words(predicted), [korquad_words(answer) for answer in gold]
    assert answer_metrics.exact_match(predicted, gold) == float(words in golds)
    expected = 0.0
    for answer in golds:
        found, wanted = "".join(words), "".join(answer)
        if same := best_matching(found, wanted):
            precision, recall = same / len(found), same / len(wanted)
            expected = max(expected, 2 * precision * recall / (precision + recall))
    assert answer_metrics.f1(predicted, gold) == pytest.approx(expected)

    plain, plains = (re.sub(r"[!-/:-@\[-`{-~]", "", text.lower()) for text in (predicted, "\n".join(gold)))
    plain, plains = " ".join(plain.split()), [" ".join(line.split()) for line in plains.split("\n")]  # type: ignore[assignment]
    assert answer_metrics.klue_exact_match(predicted, gold) == float(plain in plains)
    expected = 0.0
    for answer in plains:
        run = longest_common_run(plain, answer)
        if not answer:
            expected = max(expected, float(not plain))
        elif run:
            precision, recall = run / len(plain), run / len(answer)
            expected = max(expected, 2 * precision * recall / (precision + recall))
    assert answer_metrics.rouge_w(predicted, gold) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("predicted", "gold", "exact", "f1", "rouge_w", "klue"),
    [
        ("세종대왕이", ["세종대왕"], 0, 8 / 9, 8 / 9, 0),
        ("1443 년", ["1443년"], 0, 1, 2 * 4 / 11, 0),  # spaces are no characters to KorQuAD, but to KLUE
        ("《훈민정음》", ["훈민정음"], 1, 1, 8 / 10, 0),  # KLUE's pattern leaves 《》 in
        ("(가)나", ["가 나"], 1, 1, 2 / 5, 0),
        ("대왕", ["세종", "세종대왕", "왕"], 0, 2 / 3, 2 / 3, 0),
        ("ABC!", ["abc"], 1, 1, 1, 1),
        ("", [], 1, 1, 1, 1),
        ("가", [], 0, 0, 0, 0),
        ("", ["가"], 0, 0, 0, 0),
        ("가나", ["나가"], 0, 1, 1 / 2, 0),
    ],
)
def test_scores_by_hand(predicted: str, gold: list[str], exact: float, f1: float, rouge_w: float, klue: float) -> None:
    found = [
        answer_metrics.exact_match(predicted, gold), answer_metrics.f1(predicted, gold),
        answer_metrics.rouge_w(predicted, gold), answer_metrics.klue_exact_match(predicted, gold),
    ]  # fmt: skip
    assert found == pytest.approx([exact, f1, rouge_w, klue])
