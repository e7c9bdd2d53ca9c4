"""Quality of generated Korean: properties, and sentences that a reader would judge the same way."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from finetuning.korean.text_quality import (
    GeneratedText,
    hangul_share,
    hanja_count,
    is_broken,
    metrics,
    mixes_politeness,
    remarks,
    repetition,
)

ANSWER = "저도 그렇게 생각해요. 주말에는 푹 쉬시는 게 좋겠습니다."


@example("𠀀\U0003134b")
@given(st.text())
def test_measures_stay_in_their_bounds(text: str) -> None:
    assert 0 <= repetition(text) < 1
    assert 0 <= hangul_share(text) <= 1
    assert 0 <= hanja_count(text) <= len(text)
    found = metrics([GeneratedText(text, ended=True)])
    assert found["ended"] == 1 and all(0 <= value <= 1 for value in found.values())


@given(st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3), min_size=8), st.integers(2, 5))
def test_a_text_said_again_repeats_itself(text: str, times: int) -> None:
    assert repetition(" ".join([text] * times)) > repetition(text)


def test_a_loop_is_repetition_and_polite_endings_are_not() -> None:
    assert repetition(ANSWER) == 0
    assert repetition("정말 좋아요. " * 20) > 0.9


@pytest.mark.parametrize(
    ("text", "hangul", "hanja"),
    [
        ("안녕하세요 ㅋㅋ", 1.0, 0),
        ("안녕 hello", 2 / 7, 0),
        ("大韓民國 만세", 1 / 3, 4),
        ("123 !?", 1.0, 0),
        ("我喜欢你", 0.0, 4),
    ],
)
def test_hangul_and_hanja(text: str, hangul: float, hanja: int) -> None:
    assert hangul_share(text) == pytest.approx(hangul)
    assert hanja_count(text) == hanja
    assert hangul_share(unicodedata.normalize("NFD", "한글")) == 1


@pytest.mark.parametrize(
    "text",
    [
        "그렇게 생각해요. 나는 싫다.",
        "반갑습니다! 오늘 뭐 했냐?",
        "저는 괜찮아요 ㅎㅎ\n너도 힘들었겠지...",
        "그건 제가 했습니다. 그래서 좋았어.",
        "네, 맞습니다. 같이 하자!",
    ],
)
def test_polite_and_plain_sentences_in_one_answer_are_mixed(text: str) -> None:
    assert mixes_politeness(text)


@pytest.mark.parametrize(
    "text",
    [
        ANSWER,
        "좋습니다! 오늘은 쉬세요. 내일 뵙죠~",
        "나는 간다. 너도 왔냐? 그럼 같이 하자.",
        "네. 알겠습니다. 사과, 배, 포도.",
        "잘 하시는데요. 괜찮나요?",
        "",
    ],
)
def test_one_politeness_is_not_mixed(text: str) -> None:
    assert not mixes_politeness(text)


@pytest.mark.parametrize(("text", "broken"), [
    ("안녕\ufffd", True), ("ᄋ녕", True), ("안\x00녕", True), ("안녕\n하세요\tㅋㅋ 🙂", False),
    (unicodedata.normalize("NFD", "안녕"), False),
])  # fmt: skip
def test_broken_characters(text: str, broken: bool) -> None:
    assert is_broken(text) is broken


def test_metrics_are_shares_over_the_texts() -> None:
    said = [
        GeneratedText(ANSWER, True),
        GeneratedText("정말 좋아요. " * 20, False),
        GeneratedText("我喜欢你", True),
        GeneratedText("좋아요. 싫다.\ufffd", True),
    ]
    found = metrics(said)
    assert found["ended"] == 0.75 and found["broken"] == 0.25 and found["mixed_politeness"] == 0.25
    assert 0 < found["hanja"] < 0.1 and found["hangul"] == 0.75
    assert metrics([]) == {}


def test_only_what_is_wrong_is_remarked() -> None:
    assert remarks(GeneratedText(ANSWER, True)) == []
    assert remarks(GeneratedText("정말 좋아요. " * 20, False))[0] == "끝나지 않음"
    assert any("반복" in remark for remark in remarks(GeneratedText("정말 좋아요. " * 20, True)))
    assert remarks(GeneratedText("我喜欢你", True)) == ["한자 4자"]
