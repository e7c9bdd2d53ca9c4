"""Every shape of conversations trains what its author meant, or is refused by name."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from data_manager import DataManager
from exceptions import DataError
from finetuning.config.schema import Settings
from finetuning.tasks.registry import find_task
from tests.support.chat import with_special_tokens
from tests.support.cli import Cli
from tests.support.shapes import CASES, MARKS, TEMPLATE, Case, first_example


@pytest.fixture(scope="module")
def tokenizer(tiny_causal: Path) -> Any:
    from transformers import AutoTokenizer

    made = with_special_tokens(AutoTokenizer.from_pretrained(tiny_causal), MARKS)
    made.chat_template = TEMPLATE
    return made


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_a_shape_trains_what_its_author_meant_or_is_refused(case: Case, tokenizer: Any, tmp_path: Path) -> None:
    if case.is_refused:
        with pytest.raises(DataError) as refused:
            first_example(case, tokenizer, tmp_path)
        assert case.expected in f"{refused.value}"
    else:
        assert first_example(case, tokenizer, tmp_path) == case.expected


def test_what_is_not_read_is_named(tokenizer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    message = {"role": "user", "content": "질문", "timestamp": "어제"}
    row = {"id": 1, "source": "웹", "messages": [message, {"role": "assistant", "content": "답"}]}
    first_example(Case("fields", row, ""), tokenizer, tmp_path)
    assert "읽지 않는 열: id, source" in caplog.text
    assert "메시지에서 읽지 않는 항목이 있습니다: timestamp 12개" in caplog.text


def test_a_turn_before_the_first_question_is_counted(
    tokenizer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (case,) = [case for case in CASES if case.name == "sharegpt begins with gpt"]
    first_example(case, tokenizer, tmp_path)
    assert "첫 질문보다 먼저 나와 제외한 assistant 메시지 12개(1번째 행 '어서 오세요' → '')" in caplog.text


def test_conversations_among_texts_are_told(tokenizer: Any, tmp_path: Path) -> None:
    """The rows of one table have one shape: a conversation in a column of texts is a bad row, and not lost."""
    path = tmp_path / "mixed.jsonl"
    turns = [{"role": "user", "content": "질문"}, {"role": "assistant", "content": "답"}]
    rows = [{"text": f"글 {number}"} for number in range(8)] + [{"text": turns}]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    settings = Settings.model_validate({
        "model": {"task": "text-generation"},
        "data": {"dataset_name": str(path), "dataset_cache_dir": str(tmp_path / "cache")},
    })  # fmt: skip
    with pytest.raises(DataError, match=r"첫 행과 모양이 다른 행 1행\(9번째\)"):
        DataManager(settings, find_task(settings)).load_splits()


def test_one_bad_conversation_is_a_bad_row(cli: Cli, tiny_causal: Path, tmp_path: Path) -> None:
    """A template that refuses one row does not end the run: the row is named and left out."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, data = tmp_path / "model", tmp_path / "chat.jsonl"
    made = AutoTokenizer.from_pretrained(tiny_causal)
    made.chat_template = (
        "{% for m in messages %}{% if '금지' in m['content'] %}{{ raise_exception('no') }}{% endif %}"
        "{{ m['role'] + ':' + m['content'] + '</s>' }}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    )
    made.save_pretrained(folder)
    AutoModelForCausalLM.from_pretrained(tiny_causal).save_pretrained(folder)
    rows = [{"prompt": f"물음 {number}" + (" 금지" if number == 3 else ""), "response": "답"} for number in range(40)]
    data.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    flags = ("--task", "text-generation", "--model_name", folder, "--dataset", data, "--output_dir", tmp_path / "run")
    planned = cli("plan", *flags, "--set", "data.max_bad_rows=0.1")
    assert planned.code == 0, planned.err
    assert "chat template이 받지 않는 대화(no) 1행(4번째)" in planned.err + planned.out
    refused = cli("plan", *flags, "--set", "data.max_bad_rows=0")
    assert refused.code != 0 and "chat template에 맞지 않는 행이 너무 많습니다" in refused.err
