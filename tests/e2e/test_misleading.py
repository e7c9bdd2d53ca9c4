"""Likely mistakes: what is said of them through the command line, and that nothing is said without a reason."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tests.support.cli import Cli, arguments_for


def write_pairs(path: Path) -> Path:
    rows = [f"질문 {number},답 {number}" for number in range(40)]
    path.write_text("\n".join(["Q,A", *rows]) + "\n", encoding="utf-8")
    return path


def plan_for(model: Path, data: Path, folder: Path, *more: object) -> list[str]:
    return ["plan", *arguments_for(model, data, folder / "model", *more)]


def test_columns_of_another_task_are_refused_with_the_right_flags(cli: Cli, tiny_causal: Path, tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "qa.csv")
    flags = plan_for(tiny_causal, data, tmp_path, "--task", "text-generation")
    run = cli(*flags, "--text_column", "Q", "--label_column", "A")
    assert run.code == 2
    assert "읽지 않는 열" in run.err and "data.label_column: A" in run.err
    right = "--set data.prompt_column=Q --set data.response_column=A"
    assert right in run.err
    run = cli(*flags, *right.split())
    assert run.code == 0, run.err
    assert "⟦답 0" in run.out


def without_memory(plan: str) -> list[str]:
    """Leave out what depends on the memory that the process holds, which differs by some megabytes between two runs."""
    measured = ("  프로그램:", "  합계:", "  체크포인트를 저장하는 동안:")
    return [line for line in plan.splitlines() if not line.startswith(measured)]


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        pytest.param(pattern, damage, marks=[] if place == number else pytest.mark.soak)
        for place, pattern in enumerate(("rows-*.arrow", "rows-*.json", "examples-*.arrow"))
        for number, damage in enumerate(("emptied", "halved", "zeroed at its end"))
    ],
)
def test_broken_file_of_the_cache_is_made_again(
    cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path, pattern: str, damage: str
) -> None:
    flags = plan_for(tiny_model, reviews, tmp_path)
    whole = cli(*flags)
    assert whole.code == 0, whole.err
    files = list((tmp_path / "cache" / "prepared").glob(pattern))
    assert files
    for path in files:
        content = path.read_bytes()
        kept = {"emptied": 0, "halved": len(content) // 2, "zeroed at its end": max(0, len(content) - 64)}[damage]
        path.write_bytes(content[:kept] + (b"\0" * 64 if damage.startswith("zeroed") else b""))
    again = cli(*flags)
    assert (again.code, without_memory(again.out)) == (0, without_memory(whole.out)), again.err
    assert "깨져 다시 만듭니다" in again.err
    assert "깨져" not in cli(*flags).err


def test_template_in_cp949_is_named(cli: Cli, tiny_causal: Path, tmp_path: Path) -> None:
    template = tmp_path / "양식.jinja"
    text = "{% for m in messages %}말: {{ m['content'] }}</s>{% endfor %}"
    template.write_bytes(text.encode("cp949"))
    flags = plan_for(
        tiny_causal, write_pairs(tmp_path / "qa.csv"), tmp_path, "--task", "text-generation",
        "--set", "data.prompt_column=Q", "--set", "data.response_column=A",
        "--set", f"text_generation.chat_template={template}",
    )  # fmt: skip
    run = cli(*flags)
    assert run.code == 2, run.err
    assert "CP949" in run.err and str(template) in run.err and "iconv" in run.err
    template.write_bytes(text.encode("utf-8-sig"))
    run = cli(*flags)
    assert run.code == 0 and "말: " in run.out, run.err


def test_only_what_was_asked_for_is_warned_of(cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path) -> None:
    flags = ["plan", "--model_name", tiny_model, "--dataset", reviews, "--set", f"data.dataset_cache_dir={tmp_path}"]
    assert "최대 길이" not in cli(*flags).err
    run = cli(*flags, "--max_length", 512 - 1)
    assert run.code == 0 and "64 토큰" in run.err


def test_home_folder_of_a_model_is_found_by_training_too(
    cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tiny_model.parent))
    arguments = arguments_for(Path("~") / tiny_model.name, reviews, tmp_path / "model", "--epochs", 1)
    run = cli("train", *arguments)
    assert run.code == 0, run.err
    assert not os.path.lexists("~")
    assert "Warning" not in run.err


def test_dialogues_given_to_a_classifier_name_their_task(cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    data = tmp_path / "dialogues.jsonl"
    turns = [{"role": "user", "content": "안녕"}, {"role": "assistant", "content": "네"}]
    data.write_text("".join(json.dumps({"messages": turns}, ensure_ascii=False) + "\n" for _ in range(20)), "utf-8")
    run = cli(*plan_for(tiny_model, data, tmp_path))
    assert run.code == 3
    assert "--task text-generation" in run.err and "messages" in run.err


@pytest.mark.parametrize("has_end", [False, True])
def test_encoder_asked_to_generate_is_named(cli: Cli, tiny_model: Path, tmp_path: Path, has_end: bool) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "encoder")
    if has_end:  # as RoBERTa
        tokenizer = AutoTokenizer.from_pretrained(model)
        tokenizer.eos_token = "[SEP]"
        tokenizer.save_pretrained(model)
    data = write_pairs(tmp_path / "qa.csv")
    columns = ["--set", "data.prompt_column=Q", "--set", "data.response_column=A"]
    run = cli(*plan_for(model, data, tmp_path, "--task", "text-generation", *columns))
    assert run.code == 4, run.err
    assert "인코더로 보입니다" in run.err and "--task text-classification" in run.err


def test_column_of_one_label_is_answered_with_the_flag(cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    data = tmp_path / "one.csv"
    data.write_text("text,label,감정\n" + "".join(f"글 {n},같음,{n % 2}\n" for n in range(20)), encoding="utf-8")
    run = cli(*plan_for(tiny_model, data, tmp_path))
    assert run.code == 3
    assert "한 가지뿐입니다: 같음" in run.err and "--label_column" in run.err
