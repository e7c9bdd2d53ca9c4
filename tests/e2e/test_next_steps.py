"""The commands that the end of a command tells are ready to paste: each of them runs."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from tests.support.cli import Cli

QUESTIONS = [("밥 먹었어?", "네"), ("잘 자", "네"), ("뭐 해?", "쉬어요"), ("안녕", "안녕하세요")]


def told(log: str) -> list[list[str]]:
    """The words of each command that a log tells, after those that name the interpreter and the program."""
    _, _, steps = log.partition("다음에 할 수 있는 일\n")
    lines = [line for line in steps.splitlines() if line.startswith("    ")]
    assert lines, log
    return [shlex.split(line)[2:] for line in lines]


def commands(steps: list[list[str]]) -> list[str]:
    return [words[0] if not words[0].startswith("--") else "train" for words in steps]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files whose names the commands have for those of the user, and a space in its path."""
    folder = tmp_path_factory.mktemp("내 폴더 ")
    rows = "".join(f"{question},{answer}\n" for question, answer in QUESTIONS * 6)
    for name in ("대화 기록.csv", "labelled.csv"):
        (folder / name).write_text(f"Q,A\n{rows}", encoding="utf-8")
    (folder / "new.csv").write_text("Q\n밥 먹었어?\n", encoding="utf-8")
    return folder


def check_all_run(cli: Cli, folder: Path, steps: list[list[str]]) -> None:
    for words in steps:
        run = cli(*words, cwd=folder, stdin="안녕\n")
        assert run.code == 0, (words, run.err)


def test_every_command_that_a_conversation_model_is_told_runs(cli: Cli, tiny_causal: Path, folder: Path) -> None:
    flags = [
        "--task", "text-generation", "--model_name", tiny_causal, "--dataset", "대화 기록.csv",
        "--output_dir", "models/대화 모델", "--epochs", "1", "--max_length", "64", "--set", "model.adapter.method=lora",
        "--set", "generation.max_new_tokens=2",
    ]  # fmt: skip
    planned = cli("plan", *flags, "--compare", tiny_causal, cwd=folder)
    (words,) = told(planned.err)
    assert words == list(map(str, flags))
    trained = cli(*words, cwd=folder)
    assert trained.code == 0, trained.err
    steps = told(trained.err)
    assert commands(steps) == ["chat", "predict", "predict", "evaluate", "export", "train"]
    check_all_run(cli, folder, steps)
    exported = next(words for words in steps if words[0] == "export")
    again = cli(*exported, cwd=folder)
    after_export = told(again.err)
    assert commands(after_export) == ["chat", "predict", "predict"]
    check_all_run(cli, folder, after_export)
    after_chat = told(cli(*steps[0], cwd=folder, stdin="안녕\n/끝\n").err)
    assert commands(after_chat) == ["predict", "predict", "evaluate", "export"]
    check_all_run(cli, folder, after_chat)


def test_predict_counts_its_labels_beside_the_predictions(
    cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path
) -> None:
    trained = cli("--model_name", tiny_model, "--dataset", reviews, "--output_dir", "model", "--epochs", "1",
                  "--max_length", "32", cwd=tmp_path)  # fmt: skip
    steps = told(trained.err)
    assert commands(steps) == ["predict", "predict", "evaluate", "train"]
    (tmp_path / "new.csv").write_text("text\n재미있다\n\n지루하다\n", encoding="utf-8")
    check_all_run(cli, tmp_path, [words for words in steps if words[0] != "predict"])
    to_file = cli(*steps[1], cwd=tmp_path)
    typed = cli(*steps[0], cwd=tmp_path, stdin="재미있다\n지루하다\n지루하다\n")
    said = [json.loads(line)["label"] for line in typed.out.splitlines()]
    assert len(said) == 3  # nothing but predictions on standard output
    assert "예측한 행 3개. 라벨별 개수: " in typed.err
    assert all(f"{label} {said.count(label)}" in typed.err for label in said)
    assert commands(told(typed.err)) == ["predict", "evaluate"]
    assert to_file.out == ""
    assert "result.csv" in to_file.err
    evaluated = cli("evaluate", "--output_dir", "model", "--dataset", reviews, cwd=tmp_path)
    assert evaluated.out.count("정확도") == 1
    assert evaluated.err.count("정확도") == 1 and "신뢰구간" in evaluated.err  # with its interval, in the verdict
