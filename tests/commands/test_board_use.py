"""Models that the page asks: answers that are stopped or left, and models that are trained again meanwhile."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from exceptions import ModelError
from finetuning.commands.board_use import Talks

ANSWERS = """import json, sys
print(json.dumps({"task": "text-generation", "columns": [], "chats": True}), flush=True)
for line in sys.stdin:
    text = json.loads(line).get("text")
    if text is None:  # a stop that came when the answer was whole
        continue
    for number in range(3):
        print(json.dumps({"piece": f"{text}{number}"}), flush=True)
    if text == "endless":
        assert json.loads(sys.stdin.readline()) == {"stop": True}
    print(json.dumps({"answer": text, "stopped": text == "endless"}), flush=True)
"""


def start(words: Sequence[str], log: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", ANSWERS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", bufsize=1
    )


def test_an_answer_that_was_left_is_not_the_next_one() -> None:
    talks = Talks(start)
    try:
        assert talks.load("model", ["chat"]).chats
        left = talks.ask("model", {"text": "a"})
        assert next(iter(left)) == {"piece": "a0"}
        left.close()  # type: ignore[attr-defined]
        assert [*talks.ask("model", {"text": "b"})] == whole("b")
    finally:
        talks.close()


def whole(text: str) -> list[dict[str, object]]:
    return [*({"piece": f"{text}{n}"} for n in range(3)), {"answer": text, "stopped": text == "endless"}]


def test_an_answer_ends_when_it_is_stopped_and_when_nobody_reads_it() -> None:
    talks = Talks(start)
    try:
        talks.load("model", ["chat"])
        answer = talks.ask("model", {"text": "endless"})
        pieces = [next(answer) for _ in range(3)]  # type: ignore[call-overload]
        talks.stop("model")
        assert [*pieces, *answer] == whole("endless")
        talks.stop("model")  # nothing grows
        left = talks.ask("model", {"text": "endless"})
        next(left)  # type: ignore[call-overload]
        left.close()  # type: ignore[attr-defined]
        assert [*talks.ask("model", {"text": "b"})] == whole("b")
    finally:
        talks.close()


def test_a_model_that_was_trained_again_is_loaded_anew(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"before")
    logs: list[Path] = []

    def counted(words: Sequence[str], log: Path) -> subprocess.Popen[str]:
        logs.append(log)
        return start(words, log)

    talks = Talks(counted)
    try:
        for _ in range(2):
            talks.load(str(tmp_path), ["chat"])
        assert len(logs) == 1
        weights.write_bytes(b"trained further")
        with pytest.raises(ModelError, match="다시 학습"):
            next(talks.ask(str(tmp_path), {"text": "a"}))  # type: ignore[call-overload]
        talks.load(str(tmp_path), ["chat"])
        assert len(logs) == 2 and [*talks.ask(str(tmp_path), {"text": "a"})] == whole("a")
    finally:
        talks.close()


def test_an_answer_is_read_by_several_threads() -> None:
    talks = Talks(start)
    try:
        talks.load("model", ["chat"])
        for text in ("a", "b"):
            answer = talks.ask("model", {"text": text})
            read = []
            for _ in range(4):
                with ThreadPoolExecutor(1) as thread:
                    read.append(thread.submit(next, answer).result())
            assert read == whole(text)
            assert next(answer, None) is None
    finally:
        talks.close()
