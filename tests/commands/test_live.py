"""`predict --live`: what a model says that it takes, before it is asked anything."""

from __future__ import annotations

import json
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
