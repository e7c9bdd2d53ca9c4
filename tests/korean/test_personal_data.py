"""Personal data by their Korean patterns: what is found, what is not, and what a run says of them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from data_manager import DataManager
from exceptions import SettingsError
from finetuning.config.schema import Settings
from finetuning.korean.personal_data import PersonalData
from finetuning.tasks.registry import find_task


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("제 번호는 010-1234-5678입니다", "제 번호는 [전화번호]입니다"),
        ("01012345678로 연락", "[전화번호]로 연락"),
        ("+82 10 1234 5678", "[전화번호]"),
        ("사무실 02-345-6789, (031) 123-4567", "사무실 [전화번호], [전화번호]"),
        ("주민번호 900101-1234567", "주민번호 [주민등록번호]"),
        ("9001011234568", "[주민등록번호]"),  # its check digit: 8
        ("메일은 gildong.hong@example.co.kr로", "메일은 [이메일]로"),
        ("국민은행 123456-04-123456으로 입금", "국민은행 [계좌번호]으로 입금"),
        ("계좌번호: 110-123-456789", "계좌번호: [계좌번호]"),
        ("서울특별시 강남구 테헤란로 123에서", "[주소]에서"),
        ("경기도 성남시 분당구 정자동 178-1", "[주소]"),
    ],
)
def test_what_is_found(text: str, masked: str) -> None:
    found, kinds = PersonalData(masks=True).value(text)
    assert found == masked and sum(kinds.values()) == masked.count("[")
    assert PersonalData(masks=False).value(text) == (text, kinds)


@pytest.mark.parametrize(
    "text",
    [
        "2020-01-01에 1,234,567원을 썼다",
        "9001011234567",  # a wrong check digit, and no hyphen
        "901301-1234567",  # no thirteenth month
        "버전 1.2.3.4와 번호 12345678901234567",
        "주문번호 20240101-123456",
        "서울에서 부산까지 400km",
        "정말 재미있다 10점!!! @친구",
        "전화는 1588-1234",
    ],
)
def test_what_is_no_personal_data(text: str) -> None:
    assert PersonalData(masks=True).value(text) == (text, {})


def test_texts_inside_of_conversations_are_masked() -> None:
    messages = [{"role": "user", "content": "010-1234-5678"}, {"role": "assistant", "content": "네"}]
    found, kinds = PersonalData(masks=True).value(messages)
    assert [message["content"] for message in found] == ["[전화번호]", "네"] and kinds == {"전화번호": 1}


def manager(path: Path, task: str = "text-classification", **data: Any) -> DataManager:
    data = {"dataset_name": str(path), "dataset_cache_dir": str(path.parent / "cache"), **data}
    settings = Settings.model_validate({"model": {"task": task}, "data": data})
    return DataManager(settings, find_task(settings))


def test_a_run_warns_of_them_or_masks_them_and_shows_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [f"전화 010-1234-567{n},가" for n in range(8)] + [f"글 {n},나" for n in range(8)]
    (tmp_path / "a.csv").write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    with caplog.at_level(logging.INFO):
        manager(tmp_path / "a.csv").load_splits()
    assert "개인정보로 보이는 값이 있습니다: 전화번호 8개" in caplog.text and "data.mask_pii=true" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        splits = manager(tmp_path / "a.csv", mask_pii=True).load_splits()
    assert "가렸습니다: 전화번호 8개" in caplog.text and "1234" not in caplog.text
    texts = {row["text"] for split in splits.values() for row in split.table}
    assert "전화 [전화번호]" in texts and not any("010" in text for text in texts)
    read = manager(tmp_path / "a.csv", mask_pii=True).load_unlabelled(None, ["010-1234-5678"])
    assert [row["text"] for rows_read, _ in read.chunks() for row in rows_read.table] == ["[전화번호]"]


def test_a_task_that_counts_characters_refuses_the_mask(tmp_path: Path) -> None:
    row = json.dumps({"tokens": list("010-1234-5678"), "ner_tags": ["O"] * 13})
    (tmp_path / "a.jsonl").write_text("\n".join([row] * 9), encoding="utf-8")
    with pytest.raises(SettingsError, match="글자의 위치"):
        manager(tmp_path / "a.jsonl", "token-classification", mask_pii=True).load_splits()
