"""Code of others is stopped in time: chat templates that loop for ever, in any thread."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path

import pytest

from finetuning.tasks.generation.chat.time_limit import LimitPassed, limited
from tests.support.cli import Cli

FOR_EVER = "{% for _ in range(99999) %}" * 3 + "{% endfor %}" * 3
GROWING = "{% set n = namespace(s='aaaaaaaa') %}{% for a in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}"


def loop_for_ever() -> None:
    with limited(0.3, 1 << 40):
        while True:
            pass


def test_a_loop_is_stopped_in_any_thread() -> None:
    found: list[type[BaseException]] = []

    def work() -> None:
        try:
            loop_for_ever()
        except BaseException as error:
            found.append(type(error))

    with pytest.raises(LimitPassed):
        loop_for_ever()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)
    assert found == [LimitPassed]


def test_what_ends_in_time_is_left_alone() -> None:
    with limited(0.2, 1 << 40):
        assert signal.getitimer(signal.ITIMER_REAL)[1] > 0
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.parametrize("template", [FOR_EVER, GROWING])
def test_a_chat_template_that_does_not_end_is_named(template: str, cli: Cli, tiny_causal: Path, tmp_path: Path) -> None:
    (tmp_path / "loop.jinja").write_text(template, encoding="utf-8")
    rows = [{"prompt": f"질문 {number}", "response": "답"} for number in range(30)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    begin = time.monotonic()
    run = cli(
        "plan", "--task", "text-generation", "--model_name", tiny_causal, "--dataset", tmp_path / "train.jsonl",
        "--set", f"text_generation.chat_template={tmp_path / 'loop.jinja'}",
        "--set", f"data.dataset_cache_dir={tmp_path / 'cache'}",
    )  # fmt: skip
    assert run.code == 4, run.err
    assert "chat template" in run.err and "Traceback" not in run.err
    assert time.monotonic() - begin < 60
