"""Particles after any word, and the text of an error."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exceptions import DataError
from finetuning.korean.particles import with_particle


@pytest.mark.parametrize(
    ("word", "particles", "expected"),
    [
        ("모델", "을/를", "모델을"),
        ("데이터", "을/를", "데이터를"),
        ("파일", "으로/로", "파일로"),
        ("학습", "으로/로", "학습으로"),
        ("train.csv", "은/는", "train.csv는"),
        ("label", "이/가", "label이"),
        ("512", "은/는", "512는"),
        ("16", "이/가", "16이"),
        ("7", "으로/로", "7로"),
        ("'라벨'", "이/가", "'라벨'이"),
        ("tokenizer", "이/가", "tokenizer가"),
        ("training.optimizer", "으로/로", "training.optimizer로"),
        ("title", "으로/로", "title로"),
        ("title", "을/를", "title을"),
        ("data.encoding", "이/가", "data.encoding이"),
        ("dataset", "은/는", "dataset은"),
        ("model.name", "이/가", "model.name이"),
        ("batch_size", "이/가", "batch_size가"),
        ("topic", "을/를", "topic을"),
        ("group", "이/가", "group이"),
        ("loop", "이/가", "loop가"),
        ("1e-05", "이/가", "1e-05가"),
        ("text", "을/를", "text를"),
        ("split", "으로/로", "split으로"),
        ("KR", "으로/로", "KR로"),
        ("LM", "이/가", "LM이"),
        ("train.jsonl", "으로/로", "train.jsonl로"),
    ],
)
def test_a_particle_fits_the_last_sound(word: str, particles: str, expected: str) -> None:
    assert with_particle(word, particles) == expected


def test_an_error_says_what_where_and_what_to_do() -> None:
    error = DataError("'review' 열이 없습니다.", where="train.csv", remedy="열 이름을 확인하세요.")
    assert str(error).splitlines() == [
        "오류: 'review' 열이 없습니다.",
        "  위치: train.csv",
        "  해결: 열 이름을 확인하세요.",
    ]
    assert error.exit_code == 3


@given(st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3), min_size=1), st.sampled_from(["", "'", ")"]))
def test_particles_follow_the_final_consonant_however_it_is_spelled(word: str, mark: str) -> None:
    jamo = unicodedata.normalize("NFD", word[-1])
    closed, rieul = len(jamo) == 3, jamo[2:] == "\u11af"
    for form in ("NFC", "NFD"):
        spelled = unicodedata.normalize(form, word) + mark
        for particles in ("을/를", "이/가", "은/는", "과/와"):
            assert with_particle(spelled, particles) == spelled + particles[0 if closed else 2]
        assert with_particle(spelled, "으로/로") == spelled + ("으로" if closed and not rieul else "로")
