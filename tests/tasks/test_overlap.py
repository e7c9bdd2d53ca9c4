"""BLEU and ROUGE-L of generated texts against a plain reference, by character and by any division into morphemes."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu import corpus_bleu

from finetuning.tasks.generation.overlap import load_morphemes, overlap, rouge_l

UNITS = st.lists(st.sampled_from(["나", "는", "가", "다", "었"]), max_size=8)
MADE = ["나는 어제 학교에 갔다ㅋㅋ.", "정말 감사합니다", "", "我 hello\n그랬어요"]
TRUTHS = ["나는 오늘 학교에 가요.", "감사합니다", "네", "그랬어요 hello"]


def common(first: tuple[str, ...], second: tuple[str, ...]) -> int:
    """The length of the longest common subsequence, as it is defined."""

    @cache
    def longest(left: int, right: int) -> int:
        if left == len(first) or right == len(second):
            return 0
        if first[left] == second[right]:
            return 1 + longest(left + 1, right + 1)
        return max(longest(left + 1, right), longest(left, right + 1))

    return longest(0, 0)


def reference(made: list[str], truth: list[str]) -> float:
    if not made and not truth:
        return 1.0
    shared = common(tuple(made), tuple(truth))
    if not shared:
        return 0.0
    precision, recall = shared / len(made), shared / len(truth)
    return 2 * precision * recall / (precision + recall)


@given(made=UNITS, truth=UNITS)
def test_rouge_l_is_f1_of_the_longest_common_subsequence(made: list[str], truth: list[str]) -> None:
    assert rouge_l(made, truth) == pytest.approx(reference(made, truth))


@pytest.mark.parametrize(
    ("made", "truth", "expected"),
    [
        ("가나다", "가나다", 1.0),
        ("가다", "가나다", 2 * 1 * (2 / 3) / (1 + 2 / 3)),
        ("다나가", "가나다", 1 / 3),
        ("가 나", "가나", 1.0),
        ("", "가", 0.0),
        ("라", "가", 0.0),
    ],
)
def test_rouge_l_counts_characters(made: str, truth: str, expected: float) -> None:
    assert overlap([made], [truth], None)["rouge_l"] == pytest.approx(expected)


def test_scores_by_character_are_those_of_texts_divided_into_characters() -> None:
    """sacrebleu's own division into characters, given as one that it is to leave alone."""
    found = overlap(MADE, TRUTHS, lambda text: list("".join(text.split())))
    assert found["bleu_morpheme"] == pytest.approx(found["bleu_char"])
    assert found["rouge_l_morpheme"] == pytest.approx(found["rouge_l"])
    assert found["bleu_char"] == pytest.approx(corpus_bleu(MADE, [TRUTHS], tokenize="char").score)


def test_without_kiwi_there_are_no_morpheme_scores() -> None:
    assert set(overlap(MADE, TRUTHS, None)) == {"bleu_char", "rouge_l"}


def test_morpheme_scores_use_the_morphemes_of_kiwi() -> None:
    kiwipiepy = pytest.importorskip("kiwipiepy", reason="kiwipiepy is not installed")
    kiwi, divide = kiwipiepy.Kiwi(), load_morphemes()
    assert divide is not None and divide("학교에 갔다") == ["학교", "에", "가", "었", "다"]
    forms = {text: [token.form for token in kiwi.tokenize(text)] for text in MADE + TRUTHS}
    found = overlap(MADE, TRUTHS, divide)
    by_hand = [reference(forms[made], forms[truth]) for made, truth in zip(MADE, TRUTHS, strict=True)]
    assert found["rouge_l_morpheme"] == pytest.approx(sum(by_hand) / len(by_hand))
    made, truths = ([" ".join(forms[text]) for text in texts] for texts in (MADE, TRUTHS))
    assert found["bleu_morpheme"] == pytest.approx(corpus_bleu(made, [truths], tokenize="none").score)
