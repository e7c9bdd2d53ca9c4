"""generate: answers drawn, scored and kept as training data, and exactly those answers after a stop or a kill."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Cli
from tests.support.forked import run_group
from tests.support.paths import ROOT
from tests.support.victim import Victim

ROWS = [("밥 먹었어?", "네, 먹었어요"), ("잘 자", "안녕히 주무세요"), ("뭐 해?", "그냥 쉬어")]
ASKED = "질문\n" + "".join(f"{question}\n" for question in ("잘 자", "밥 먹었어?", "뭐 해?", "잘 자", "누구야?"))
DRAWN = ("--num_answers", "3", "--set", "generation.temperature=1.3", "--set", "generation.max_new_tokens=24")


@dataclass(frozen=True)
class Chatbot:
    """A trained model, and prompts for it."""

    model: Path
    prompts: Path

    def words(self, output: Path, *more: object) -> list[str]:
        """The words of a command that draws three answers to each prompt."""
        return list(map(str, ("generate", "--output_dir", self.model, "--input", self.prompts, "--output", output,
                              *DRAWN, *more)))  # fmt: skip


@pytest.fixture(scope="module")
def chatbot(cli: Cli, tiny_causal: Path, tmp_path_factory: pytest.TempPathFactory) -> Chatbot:
    folder = tmp_path_factory.mktemp("chatbot")
    (folder / "data").mkdir()
    text = "Q,A\n" + "".join(f'"{question}","{answer}"\n' for question, answer in ROWS * 8)
    for split in ("train", "validation"):
        (folder / "data" / f"{split}.csv").write_text(text, encoding="utf-8")
    run = cli("--task", "text-generation", "--model_name", tiny_causal, "--dataset", folder / "data", "--output_dir",
              folder / "model", "--max_length", "96", "--batch_size", "12", "--gradient_accumulation_steps", "1",
              "--learning_rate", "1e-2", "--epochs", "30", "--set", "training.save_steps=1000",
              "--set", "training.eval_steps=1000", "--set", "generation.validation_rows=0",
              "--set", f"data.dataset_cache_dir={folder / 'cache'}", "--set", "logging.progress_bar=false")  # fmt: skip
    assert run.code == 0, run.err
    (folder / "prompts.csv").write_text(ASKED, encoding="utf-8")
    return Chatbot(folder / "model", folder / "prompts.csv")


def cached_in(folder: Path) -> tuple[str, str]:
    return "--set", f"data.dataset_cache_dir={folder / 'cache'}"


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_best_answers_are_conversations_to_train_on(cli: Cli, chatbot: Chatbot, tmp_path: Path) -> None:
    every, best = tmp_path / "all.jsonl", tmp_path / "best.jsonl"
    for output, more in ((every, ("--keep", "all", "--rule", "polite")), (best, ("--rule", "polite"))):
        run = cli(*chatbot.words(output, *more))
        assert run.code == 0, run.err
    assert "생성 방법: 샘플링(temperature 1.3, top_k 50), 최대 24토큰" in run.err
    answers = read(every)
    assert [(row["row"], row["answer"]) for row in answers] == [(row, n) for row in range(1, 6) for n in (1, 2, 3)]
    assert [row["messages"][0]["content"] for row in answers[::3]] == ASKED.split("\n")[1:-1]
    kept = read(best)
    for row in kept:
        own = [one for one in answers if one["row"] == row["row"] and one["ended"] and one["messages"][1]["content"]]
        assert row["messages"] == max(own, key=lambda one: one["score"])["messages"]  # the first of the best
    texts = {
        row["row"]: [one["messages"][1]["content"] for one in answers if one["row"] == row["row"]] for row in answers
    }
    assert texts[1] != texts[4]  # a prompt that occurs again is asked for further answers
    planned = cli("plan", "--task", "text-generation", "--model_name", chatbot.model, "--dataset", best,
                  "--output_dir", tmp_path / "next", *cached_in(tmp_path))  # fmt: skip
    assert planned.code == 0, planned.err
    assert f"⟦{kept[0]['messages'][1]['content']}" in planned.out


def test_pairs_by_a_reward_model_are_preferences_to_train_on(
    cli: Cli, chatbot: Chatbot, tiny_causal: Path, tmp_path: Path
) -> None:
    pairs = [{"prompt": f"{question} {n}", "chosen": answer, "rejected": answer[::-1]} for question, answer in ROWS
             for n in range(4)]  # fmt: skip
    (tmp_path / "judged.jsonl").write_text("\n".join(map(json.dumps, pairs)), encoding="utf-8")
    cache = (*cached_in(tmp_path), "--epochs", "1", "--max_length", "96")
    judge = cli("--task", "reward", "--model_name", tiny_causal, "--dataset", tmp_path / "judged.jsonl",
                "--output_dir", tmp_path / "reward", *cache)  # fmt: skip
    assert judge.code == 0, judge.err
    output = tmp_path / "pairs.jsonl"
    run = cli(*chatbot.words(output, "--keep", "pairs", "--reward", tmp_path / "reward"))
    assert run.code == 0, run.err
    found = read(output)
    assert found and all(row["score_chosen"] > row["score_rejected"] for row in found)
    answers = [{"messages": [*row["prompt"], *row["chosen"]]} for row in found]
    (tmp_path / "answers.jsonl").write_text("\n".join(map(json.dumps, answers)), encoding="utf-8")
    said = cli("predict", "--output_dir", tmp_path / "reward", "--input", tmp_path / "answers.jsonl")
    assert [json.loads(line)["reward"] for line in said.out.splitlines()] == pytest.approx(
        [row["score_chosen"] for row in found], abs=1e-5
    )
    trained = cli("train", "--task", "preference", "--model_name", chatbot.model, "--dataset", output,
                  "--output_dir", tmp_path / "preferred", *cache)  # fmt: skip
    assert trained.code == 0, trained.err


@pytest.mark.skipif(os.name != "posix", reason="there is no fork, and no SIGKILL")
def test_answers_that_were_killed_and_stopped_are_those_of_a_run_that_was_not(
    cli: Cli, chatbot: Chatbot, tmp_path: Path
) -> None:
    small = ("--keep", "all", "--max_length", "48", "--batch_size", "1")  # a batch of one or two answers
    whole, halved = tmp_path / "whole.jsonl", tmp_path / "halved.jsonl"
    assert cli(*chatbot.words(whole, *small)).code == 0
    journal = tmp_path / "halved.jsonl.partial"
    for lines, number in ((2, signal.SIGKILL), (3, signal.SIGINT), (4, signal.SIGTERM)):
        victim = Victim(chatbot.words(halved, *small), tmp_path / "log.txt")
        _wait_for_lines(journal, lines, victim)
        victim.send(number)
        assert victim.exit_code(60) in (-signal.SIGKILL, 130, 143)
        assert not halved.exists() and len(journal.read_bytes().splitlines()) < 16
    with journal.open("ab") as file:  # as a kill in the middle of a write leaves it
        file.write(b'{"batch": 99, "made": [["')
    other = cli(*chatbot.words(halved, *small, "--seed", "7"))
    assert other.code == 2 and "생성 설정" in other.err
    ended = cli(*chatbot.words(halved, *small))
    assert ended.code == 0, ended.err
    assert "만들어 둔 답에서 이어서 만듭니다" in ended.err
    assert halved.read_bytes() == whole.read_bytes()
    assert not journal.exists()
    again = cli(*chatbot.words(halved, *small))
    assert again.code == 2 and "이미 있는 파일" in again.err


def _wait_for_lines(path: Path, lines: int, victim: Victim) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and victim.exit_code(0.002) is None:
        if path.is_file() and path.read_bytes().count(b"\n") >= lines:
            return


def test_what_does_not_go_together_is_told_before_a_model_is_loaded(cli: Cli, chatbot: Chatbot, tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    for more, told in (
        ((), "무엇으로 답을 고를지"),
        (("--keep", "good"), "best, pairs, all"),
        (("--rule", "rude"), "polite"),
        (("--keep", "pairs", "--rule", "polite", "--num_answers", "1"), "쌍을 만들 수 없습니다"),
    ):
        run = cli(*chatbot.words(output, *more))
        assert (run.code, told in run.err) == (2, True), run.err
    assert "--rule 플래그는 train 명령에" in cli("--rule", "polite").err


def test_predicted_conversations_are_training_data_again(cli: Cli, chatbot: Chatbot, tmp_path: Path) -> None:
    output, flags = tmp_path / "predicted.jsonl", ("--set", "generation.temperature=0.9")
    asked = ("predict", "--output_dir", chatbot.model, "--input", chatbot.prompts, *flags)
    run = cli(*asked, "--output", output)
    assert run.code == 0, run.err
    assert [json.loads(line) for line in cli(*asked).out.splitlines()] == read(output)  # drawn, and the same again
    planned = cli("plan", "--task", "text-generation", "--model_name", chatbot.model, "--dataset", output,
                  "--output_dir", tmp_path / "next", *cached_in(tmp_path))  # fmt: skip
    assert planned.code == 0, planned.err
    assert f"⟦{read(output)[0]['generated']}" in planned.out


@pytest.mark.skipif(os.name != "posix", reason="gloo is tried where processes are forked")
def test_two_processes_make_the_answers_of_one(cli: Cli, chatbot: Chatbot, tmp_path: Path) -> None:
    small = ("--keep", "all", "--rule", "polite", "--max_length", "48", "--batch_size", "1")  # an odd number of batches
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    assert cli(*chatbot.words(one, *small)).code == 0
    done = run_group(2, chatbot.words(two, *small), ROOT)
    assert [code for code, *_ in done] == [0, 0], done
    assert two.read_bytes() == one.read_bytes()
    assert sum(err.count("프롬프트 5개에 답을 3개씩 만들었습니다") for *_, err in done) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.jsonl", "two.jsonl"]  # no journal is left
