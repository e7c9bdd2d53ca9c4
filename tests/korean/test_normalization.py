"""Normalization to NFC, of zero-width characters and full-width forms, and what a run reports of it."""

from __future__ import annotations

import json
import logging
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_manager import DataManager
from finetuning.config.schema import Settings
from finetuning.korean.normalization import Normalizer, change_shown
from finetuning.tasks.registry import find_task

ALL = Normalizer(zero_width=True, full_width=True)
HANGUL = st.text(
    st.one_of(
        st.characters(min_codepoint=0x1100, max_codepoint=0x11FF),
        st.characters(min_codepoint=0x3130, max_codepoint=0x318F),
        st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3),
        st.characters(min_codepoint=0xFF00, max_codepoint=0xFFEF),
        st.sampled_from("aA1 \u00ad\u200b\u200c\u200d\u2060\ufeff\u3000\u0301👨👩"),
    )
)
normalizers = st.builds(Normalizer, zero_width=st.booleans(), full_width=st.booleans())
Make = Callable[..., DataManager]


@given(text=st.one_of(HANGUL, st.text()), normalizer=normalizers)
def test_normalizing_is_idempotent_nfc_and_says_what_it_did(text: str, normalizer: Normalizer) -> None:
    found, kinds = normalizer.text(text)
    assert unicodedata.is_normalized("NFC", found)
    assert normalizer.text(found) == (found, ())
    assert bool(kinds) == (found != text)


@given(text=st.text(st.characters(min_codepoint=0x3131, max_codepoint=0x318E)))
def test_compatibility_jamo_stay(text: str) -> None:
    assert ALL.text(f"재밌다{text}") == (f"재밌다{text}", ())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (unicodedata.normalize("NFD", "한글 ㅋㅋ"), "한글 ㅋㅋ"),
        ("좋\u200b다\ufeff", "좋다"),
        ("\u200d좋\u200c다", "좋다"),
        ("ㅎ\u1112\u200b\u1161\u11ab", "ㅎ한"),
        ("ＡＢＣ　１２！", "ABC 12!"),
        ("ﾡﾢ", "ㄱㄲ"),
        ("👨\u200d👩\u200d👧", "👨\u200d👩\u200d👧"),
    ],
)
def test_each_kind(before: str, after: str) -> None:
    assert ALL.text(before)[0] == after


def test_nothing_but_nfc_is_done_unasked() -> None:
    text = "Ａ\u200b１"
    assert Normalizer().text(text) == (text, ())
    assert Normalizer.of(Settings().data.normalize) == Normalizer(zero_width=True)


def test_texts_inside_lists_and_objects_are_normalized() -> None:
    value = [{"role": "user", "content": "＂안녕＂\u200b"}, 3, None]
    assert ALL.value(value) == ([{"role": "user", "content": '"안녕"'}, 3, None], ("full_width", "zero_width"))


@pytest.fixture
def manager(tmp_path: Path) -> Make:
    def make(name: str, text: bytes, task: str = "text-classification", **data: Any) -> DataManager:
        (tmp_path / name).write_bytes(text)
        data = {"dataset_name": str(tmp_path / name), "dataset_cache_dir": str(tmp_path / "cache"), **data}
        settings = Settings.model_validate({"model": {"task": task}, "data": data})
        return DataManager(settings, find_task(settings))

    return make


def test_one_line_says_what_was_found_and_changed(manager: Make, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        ("좋다", "1"),
        ("재미\u200b있다", " 부정"),
        (unicodedata.normalize("NFD", "별로"), "부정"),
        *[("글", "1")] * 9,
    ]
    text = "text,label\n" + "".join(f"{text},{label}\n" for text, label in rows)
    caplog.set_level(logging.INFO)
    splits = manager("a.csv", text.encode("utf-16")).load_splits()
    assert {"재미있다", "별로"} <= {text for split in splits.values() for text in split.table["text"]}
    (line,) = [record.message for record in caplog.records if "a.csv:" in record.message]
    for said in ("UTF-16으로 읽었습니다.", "NFC로 정규화한 값 1개(3번째 행", "제거한 값 1개(2번째 행 '재미\\u200b있다'",
                 "라벨 1개(2번째 행 ' 부정' → '부정')"):  # fmt: skip
        assert said in line


def test_what_looks_the_same_is_shown_as_its_escape() -> None:
    assert change_shown("동물 \uf933", "동물 \u76e7") == "'동물 \\uf933' → '동물 \u76e7'"


def test_a_text_of_no_width_is_an_empty_one(manager: Make) -> None:
    text = "text,label\n\u200b,1\n" + "좋다,1\n나쁘다,0\n" * 9
    splits = manager("a.csv", text.encode(), max_bad_rows=0.1).load_splits()
    assert sum(map(len, splits.values())) == 18
    kept = manager("a.csv", text.encode(), normalize=[]).load_splits()
    assert sum(map(len, kept.values())) == 19


@pytest.mark.parametrize(
    "text",
    [
        "大韓民國의 國民", "나랏말ᄊᆞ미 듕귁에 달아", "ᄒᆞᆫ글 \u113d\u1173", "뭐라카노 마 됐다 아이가", "혼저옵서예 ᄆᆞᆫ딱",
        "최고👍🏽 👨‍👩‍👧‍👦 ❤️ 🇰🇷", "ㅋㅋㅠㅠ ㆍ ㅿ ㆆ",
    ],
    ids=["hanja", "old hangul", "old hangul 2", "Gyeongsang", "Jeju", "emoji", "compatibility jamo"],
)  # fmt: skip
def test_hanja_old_hangul_dialects_and_emoji_are_kept(manager: Make, text: str) -> None:
    lines = "text,label\n" + "".join(f"{text} {number},{number % 2}\n" for number in range(20))
    splits = manager("a.csv", lines.encode()).load_splits()
    assert {row["text"] for split in splits.values() for row in split.table} == {f"{text} {n}" for n in range(20)}


def test_places_in_a_text_stay_where_they_are(manager: Make) -> None:
    tokens, tags = ["\u200b", "김", "씨", "가"], ["O", "B-PS", "I-PS", "O"]
    text = json.dumps({"tokens": tokens, "ner_tags": tags}) + "\n"
    splits = manager("a.jsonl", text.encode() * 4, "token-classification", normalize=["zero_width"]).load_splits()
    row = splits["train"].table[0]
    start, end, _ = json.loads(row["label"])[0]
    assert row["text"][start:end] == "김씨"
