"""`predict --live` and `chat --live`: what a model says that it takes; an answer that is stopped while it grows."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from finetuning.commands import live
from finetuning.config.schema import Settings
from finetuning.tasks.registry import find_task


@pytest.mark.parametrize(
    ("task", "columns"),
    [
        ("embedding", [["question", "question"], ["context", "context"]]),  # either may be embedded
        ("question-answering", [["question", "question"], ["context", "context"]]),
        ("text-classification", [["text", "text"]]),
    ],
)
def test_a_model_says_which_texts_it_takes(
    task: str, columns: list[list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    session: Any = SimpleNamespace(task=find_task(Settings.model_validate({"model": {"task": task}})))
    monkeypatch.setattr(live, "read_line", lambda: None)
    live.answer_rows(session, evaluator=SimpleNamespace())  # type: ignore[arg-type]
    assert json.loads(capsys.readouterr().out) == {"task": task, "chats": False, "columns": columns}


class Speaker:
    """A conversation in which an answer to `long` never ends by itself."""

    def __init__(self, evaluator: Any, show: Callable[[str], None], is_stopped: Callable[[], bool]) -> None:
        self.is_stopped = is_stopped

    def reply(self, text: str) -> str:
        while text == "long" and not self.is_stopped():
            continue
        return text

    def forget(self) -> None:
        return


def test_a_stop_ends_the_answer_before_it_and_no_other(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ['{"text": "long"}', '{"stop": true}', "no JSON", '{"text": "short"}', '{"forget": true}']
    monkeypatch.setattr(live, "lines_as_they_come", lambda: iter(lines))
    monkeypatch.setattr(live, "ChatSession", Speaker)
    session: Any = SimpleNamespace(task=SimpleNamespace(name="text-generation"))
    live.answer_turns(session, evaluator=SimpleNamespace())  # type: ignore[arg-type]
    _, long, wrong, short, forgotten = map(json.loads, capsys.readouterr().out.splitlines())
    assert long == {"answer": "long", "stopped": True} and short == {"answer": "short", "stopped": False}
    assert "JSON" in wrong["error"][0] and forgotten == {"answer": ""}
