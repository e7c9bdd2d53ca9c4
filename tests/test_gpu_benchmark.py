"""`python -m benchmarks gpu`: one line a fact, a budget that holds, and checks that do not stop each other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import readme, runner
from benchmarks.__main__ import main
from benchmarks.gpu.plan import Budget, Check, CheckFailed, Facts, ask, chosen
from benchmarks.gpu.processes import Processes
from benchmarks.gpu.registry import CHECKS
from benchmarks.gpu.report import GOALS, goals, outcomes
from tests.support.paths import ROOT

ON_ITS_OWN = {check.name for check in CHECKS if not check.by_default}


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Scripted:
    """Answers checks by a script: name → seconds that pass, or what goes wrong after one fact."""

    def __init__(self, clock: Clock, takes: dict[str, float], fails: dict[str, str] | None = None) -> None:
        self.clock, self.takes, self.fails = clock, takes, fails or {}
        self.asked: list[tuple[str, float]] = []

    def start_s(self) -> float:
        return 0.0 if self.asked else 30.0

    def answers(self, check: Check, limit_s: float) -> Iterator[Facts]:
        self.asked.append((check.name, limit_s))
        yield {"value": len(self.asked)}
        self.clock.now += min(self.takes[check.name], limit_s)
        if self.takes[check.name] > limit_s:
            raise CheckFailed("took too long")
        if check.name in self.fails:
            raise CheckFailed(self.fails[check.name])


def checks_of(**costs: float) -> list[Check]:
    return [Check(name, "", lambda bench: iter(()), cost) for name, cost in costs.items()]


def asked(checks: list[Check], answers: Scripted, seconds: float, patience: float = 2.0) -> list[Facts]:
    said: list[Facts] = []
    budget = Budget(seconds, answers.clock)
    ask(checks, answers, budget, lambda name, facts: said.append({"check": name, **facts}), patience)
    return said


def test_a_check_that_fails_does_not_stop_the_others() -> None:
    answers = Scripted(Clock(), {"one": 5, "two": 5, "three": 5}, {"two": "no"})
    said = asked(checks_of(one=5, two=5, three=5), answers, 240)
    ended = {line["check"]: line for line in said if "took_s" in line}
    assert ended["one"]["answered"] and ended["three"]["answered"]
    assert ended["two"]["failed"] == "no"
    assert [line["check"] for line in said if "value" in line] == ["one", "two", "three"]  # what was known before


def test_a_check_that_the_rest_is_too_small_for_is_skipped_and_a_smaller_one_is_not() -> None:
    answers = Scripted(Clock(), {"one": 40, "large": 60, "small": 10})
    said = asked(checks_of(one=40, large=60, small=10), answers, 90)  # 30 of them for the first process
    assert [name for name, _ in answers.asked] == ["one", "small"]
    skipped = [line for line in said if "skipped" in line]
    assert skipped == [{"check": "large", "skipped": "takes about 60 s, and 50 s are left"}]
    costs = {line["check"]: (line["took_s"], line["cost_s"]) for line in said if "took_s" in line}
    assert costs == {"one": (40, 40), "small": (10, 10)}


def test_a_check_whose_package_is_missing_is_skipped() -> None:
    checks = [Check("peers", "", lambda bench: iter(()), 5, needs=("json", "no_such_package")), *checks_of(one=5)]
    said = asked(checks, Scripted(Clock(), {"one": 5}), 240)
    assert said[0] == {"check": "peers", "skipped": "needs no_such_package"}
    assert said[-1]["answered"]


@given(st.lists(st.tuples(st.floats(0.1, 100), st.floats(0, 300)), max_size=12), st.floats(0, 400), st.floats(1, 20))
def test_no_check_takes_more_than_is_left(times: list[tuple[float, float]], seconds: float, patience: float) -> None:
    costs = {f"check {number}": cost for number, (cost, _) in enumerate(times)}
    takes = {f"check {number}": taken for number, (_, taken) in enumerate(times)}
    answers = Scripted(Clock(), takes)
    said = asked(checks_of(**costs), answers, seconds, patience)
    assert answers.clock.now - 100.0 <= seconds + 1e-6
    ended = [line["check"] for line in said if {"answered", "failed", "skipped"} & line.keys()]
    assert ended == list(costs)  # each ends once, in order


def test_only_names_the_checks_that_are_asked() -> None:
    assert {"qlora", "peers", "flex"} == ON_ITS_OWN
    assert [check.name for check in chosen(CHECKS, ["peers", "card"])] == ["card", "peers"]
    assert {check.name for check in chosen(CHECKS, None)} == {check.name for check in CHECKS} - ON_ITS_OWN


def test_the_checks_that_decide_most_fit_the_budget_that_is_the_default() -> None:
    left, reached = 270.0 - 8 - 30, []
    for check in chosen(CHECKS, None):
        if check.cost_s <= left:
            left -= check.cost_s
            reached.append(check.name)
    assert {"card", "parity", "short", "rows", "full-1b", "waits", "resume"} <= set(reached)


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "gpu"], cwd=ROOT, capture_output=True, text=True, encoding="utf-8",
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "OUT": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert "There is no GPU that torch can use" in done.stderr and "--tiny" in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
    assert not (tmp_path / "gpu.jsonl").exists()


def test_a_process_that_was_ended_or_whose_check_failed_leaves_the_others_their_answers(tmp_path: Path) -> None:
    checks = {check.name: check for check in CHECKS}
    processes = Processes(tmp_path / "missing", tiny=True, log=tmp_path / "log")
    try:
        with pytest.raises(CheckFailed, match="its share of the time"):
            list(processes.answers(checks["card"], 0.0))
        with pytest.raises(CheckFailed, match="FileNotFoundError"):  # its folder is not there
            list(processes.answers(checks["parity"], 300.0))
        assert processes.start_s() == 0  # the process is whole
        facts = list(processes.answers(checks["card"], 300.0))
    finally:
        processes.close()
    assert facts[0]["packages"]["torch"] and facts[1]["bf16_tflops"] > 0


def in_miniature(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> list[Facts]:
    """What a run on a CPU says, after no check failed and no result was kept."""
    monkeypatch.delenv("OUT", raising=False)
    before = set(runner.RESULTS.iterdir())
    main(["gpu", "--tiny", *words])
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines() if line.startswith("{")]
    assert [line for line in lines if "failed" in line] == []
    assert set(runner.RESULTS.iterdir()) == before
    return lines


def test_checks_in_miniature(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    lines = in_miniature(capfd, monkeypatch, "--only", "parity", "start")
    assert {line["check"] for line in lines if "answered" in line} == {"parity", "start"}
    layouts = {(line["task"], line["layout"]) for line in lines if "task" in line}
    assert layouts == {("encoder", "Padded"), ("encoder", "Grouped"), ("causal", "Padded"), ("causal", "OneRow")}
    exact = [line for line in lines if line.get("precision") == "no"]
    assert exact and all(line["gradient_differs_by"] < 1e-4 for line in exact)
    assert all(line["first_step_logged_s"] > 0 for line in lines if "first_step_logged_s" in line)


@pytest.mark.soak
def test_the_whole_in_miniature(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    lines = in_miniature(capfd, monkeypatch)
    answered = {line["check"] for line in lines if "answered" in line}
    assert answered == {check.name for check in CHECKS} - ON_ITS_OWN
    assert sum(line["took_s"] for line in lines if "took_s" in line) <= lines[-1]["at_s"] + 1  # they are rounded

    def of(check: str, fact: str) -> list[Any]:
        return [line[fact] for line in lines if line["check"] == check and fact in line]

    assert of("resume", "same") == of("resume", "same_if_deterministic") == [True]
    assert of("short", "ours_is")[0].keys() == {"trainer", "trainer-tuned", "bare"}
    assert of("rows", "share_of_rate")[0]["ours"] > 0
    assert all(difference < 0.05 for difference in of("cut-again", "losses_differ_by") + of("fp16", "losses_differ_by"))
    assert of("waits", "waits") == [0]  # a CPU is never waited for


# --- tables ---


def line_of(check: str, **facts: object) -> Facts:
    return {"check": check, "at_s": 1.0, **facts}


LINES = [
    line_of("card", device="NVIDIA H100 80GB HBM3"),
    line_of("short", ours_is={"trainer": 3.5, "trainer-tuned": 1.2}),
    line_of("short", answered=True, took_s=41.0, cost_s=50),
    line_of("full-1b", process_gib=7.4, estimate_of_peak=1.01),
    line_of("estimate", estimate_of_peak=1.3),
    line_of("rows", failed="Traceback\nRuntimeError: no", took_s=3.0, cost_s=45),
    line_of("compile", skipped="takes about 40 s, and 12 s are left"),
]


def test_what_was_measured_stands_beside_what_it_should_be() -> None:
    rows = {row["goal"]: (row["measured"], row["met"]) for row in goals(LINES).rows}
    assert rows == {
        "short-trainer": ([3.5], "yes"), "short-tuned": ([1.2], "no"), "full-1b-gib": ([7.4], "yes"),
        "estimate": ([1.01, 1.3], "no"),
    }  # fmt: skip
    ended = {row["check"]: (row["ended"], row["why"]) for row in outcomes(LINES).rows}
    assert ended == {
        "short": ("answered", ""), "rows": ("failed", "RuntimeError: no"),
        "compile": ("skipped", "takes about 40 s, and 12 s are left"),
    }  # fmt: skip


@pytest.mark.parametrize("document", [readme.KOREAN, readme.ENGLISH])
def test_the_documents_get_a_table_once_there_is_a_result(
    document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "RESULTS", tmp_path)
    text = (ROOT / document).read_text(encoding="utf-8")
    assert readme.rendered(text, document) == text  # without results nothing is written
    tables = [goals(LINES), outcomes(LINES), runner.Table((), LINES)]
    runner.save("gpu", {}, tables)
    alone = [line_of("qlora", process_gib=9.1), *LINES[:1]]
    runner.save("gpu-qlora", {}, [goals(alone), outcomes(alone), runner.Table((), alone)])
    made = readme.rendered(text, document)
    block = made.split("<!-- benchmark gpu -->\n")[1].split("<!-- /benchmark -->")[0]
    assert "NVIDIA H100 80GB HBM3" in block and "| ≥ 3 | 3.5 |" in block and "| < 10 | 9.1 |" in block
    assert len([line for line in block.splitlines() if line.startswith("| ")]) == 1 + 5
    assert readme.rendered(made, document) == made


@pytest.mark.parametrize("document", [readme.KOREAN, readme.ENGLISH])
def test_every_goal_has_a_name_in_the_documents(document: str) -> None:
    assert list(readme._GOALS[document]) == [goal.name for goal in GOALS]
