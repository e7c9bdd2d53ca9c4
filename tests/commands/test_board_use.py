"""Models that the page asks: an answer that nobody reads to its end is not taken for the next one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from finetuning.commands.board_use import Talks

ANSWERS = """import json, sys
print(json.dumps({"task": "text-generation", "columns": [], "chats": True}), flush=True)
for line in sys.stdin:
    text = json.loads(line)["text"]
    for number in range(3):
        print(json.dumps({"piece": f"{text}{number}"}), flush=True)
    print(json.dumps({"answer": text}), flush=True)
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
        assert [*talks.ask("model", {"text": "b"})] == [{"piece": f"b{n}"} for n in range(3)] + [{"answer": "b"}]
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
            assert read == [{"piece": f"{text}{n}"} for n in range(3)] + [{"answer": text}]
            assert next(answer, None) is None
    finally:
        talks.close()
