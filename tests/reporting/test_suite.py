"""What a model gained and forgot on benchmarks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from finetuning.reporting.suite import SuiteReport, TaskChange, TaskScore, lines_of, record_of


def score(name: str, each: list[int], level: int = 0, is_group: bool = False) -> TaskScore:
    accuracy = float(np.mean(each))
    metrics = {"acc": accuracy, "acc_stderr": math.sqrt(accuracy * (1 - accuracy) / len(each))}
    return TaskScore(name, level, is_group, len(each), "acc", metrics, tuple(map(float, each)))


def test_a_change_is_judged_question_by_question() -> None:
    """Ten of a hundred answers were corrected and none was lost: chance does not explain that, though ±5% would."""
    before = score("한국사", [1] * 50 + [0] * 50)
    gained = TaskChange(score("한국사", [1] * 60 + [0] * 40), before)
    assert gained.difference == pytest.approx(0.1)
    assert gained.error == pytest.approx(np.std([1] * 10 + [0] * 90, ddof=1) / 10)
    assert gained.outcome == "gained"
    moved = TaskChange(score("한국사", [0] * 20 + [1] * 75 + [0] * 5), before)  # other answers are right now
    assert moved.outcome == "gained" and TaskChange(before, moved.after).outcome == "forgotten"
    assert TaskChange(before, score("한국사", [0, 1] * 50)).outcome == "same"
    assert TaskChange(before).outcome == ""


def test_many_tasks_are_left_to_the_file_and_every_one_is_counted() -> None:
    after = [score("kmmlu", [1] * 50, is_group=True), *(score(f"kmmlu_{n}", [1, 1], level=1) for n in range(25))]
    before = [score("kmmlu", [0] * 50, is_group=True), *(score(f"kmmlu_{n}", [0, 0], level=1) for n in range(25))]
    changes = [TaskChange(*pair) for pair in zip(after, before, strict=True)]
    report = SuiteReport(("kmmlu",), "model", "base", changes, "0.4")
    text = "\n".join(lines_of(report))
    assert "kmmlu_3" not in text and "과제 25개" in text and "나아짐 25개" in text
    record = record_of(report)
    assert record["rows"] == 50 and len(record["tasks"]) == 26  # type: ignore[arg-type]
