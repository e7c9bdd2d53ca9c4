"""The verdict on a run: beside the commonest label, with an interval, and what went wrong named with its remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetuning.config.schema import Settings
from finetuning.reporting.metrics_file import MetricsFile, validation_losses
from finetuning.reporting.quality import Quality, Scored, quality_of
from finetuning.tasks.answering.scoring import Found
from finetuning.tasks.registry import find_task
from tests.support.cli import Cli, read_json

NAMES = ("긍정", "부정")


def judged(
    truth: list[str], said: list[str], *, train: dict[str, int] | None = None, steps: int = 500,
    losses: tuple[float, ...] = (), split: str = "test",
) -> Quality:  # fmt: skip
    task = find_task(Settings.model_validate({"model": {"task": "text-classification"}}))
    predictions: list[Any] = [np.eye(2)[NAMES.index(label)] for label in said]
    metrics = task.scores.metrics(predictions, {"label": truth}, NAMES, 0.3)
    labels = train or {"긍정": 60, "부정": 40}
    return quality_of(task, Scored(split, {"label": truth}, predictions, metrics, NAMES, labels), steps, losses)


def kinds(quality: Quality) -> list[str]:
    return [finding.kind for finding in quality.findings]


def test_the_baseline_is_the_commonest_label_of_train() -> None:
    truth = ["긍정"] * 30 + ["부정"] * 70
    quality = judged(truth, truth)
    assert quality.baseline == pytest.approx(0.3)  # train's commonest label is not that of the test
    assert kinds(quality) == ["learned", "score for a paper"]
    assert "항상 가장 흔한 라벨('긍정')로만 예측하면 0.3000입니다" in quality.findings[0].text


@pytest.mark.parametrize(("rows", "right"), [(200, 0.8), (2000, 0.7)])
def test_the_interval_is_that_of_the_binomial_distribution(rows: int, right: float) -> None:
    """For accuracy, the bootstrap is the binomial distribution: 1.96 standard deviations to both sides."""
    truth = ["긍정", "부정"] * (rows // 2)
    said = [label if place < right * rows else NAMES[1 - NAMES.index(label)] for place, label in enumerate(truth)]
    low, high = judged(truth, said).interval or (0.0, 0.0)
    half = 1.96 * (right * (1 - right) / rows) ** 0.5
    assert low == pytest.approx(right - half, abs=0.2 * half) and high == pytest.approx(right + half, abs=0.2 * half)


def test_a_model_that_says_one_label_has_not_learned() -> None:
    truth = ["긍정"] * 12 + ["부정"] * 8
    quality = judged(truth, ["긍정"] * 20, steps=9)
    weak = ["not learned", "few steps", "labels never predicted", "few scored rows", "score for a paper"]
    assert kinds(quality) == weak
    assert "9스텝뿐" in quality.findings[1].text and "training.epochs" in quality.findings[1].remedy
    assert "부정(정답 8행)" in quality.findings[2].text


def test_a_small_lead_on_few_rows_is_no_lead() -> None:
    truth = ["긍정"] * 11 + ["부정"] * 9
    assert kinds(judged(truth, ["긍정"] * 12 + ["부정"] * 8))[0] == "learned"
    wrong = [*["긍정"] * 8, *["부정"] * 3, *["긍정"] * 5, *["부정"] * 4]  # 12 of 20 right, where 11 are had for nothing
    assert kinds(judged(truth, wrong))[0] == "not learned"


def test_rare_labels_overfitting_and_scores_of_validation_are_named() -> None:
    truth = ["긍정", "부정"] * 50
    quality = judged(truth, truth, train={"긍정": 90, "부정": 4}, losses=(0.5, 0.4, 0.45), split="validation")
    assert kinds(quality) == ["learned", "rare labels", "overfits", "chosen on validation"]
    assert "training.epochs를 2로" in quality.findings[2].remedy
    assert not {"overfits"} & set(kinds(judged(truth, truth, losses=(0.5, 0.4, 0.41)))), "a little higher is no rise"


def test_answers_are_compared_with_finding_none() -> None:
    """Of 200 questions 50 have no answer, and 120 of the others are answered right."""
    task = find_task(Settings.model_validate({"model": {"task": "question-answering"}}))
    gold = [[] if row < 50 else [{"text": "서울", "answer_start": 0}] for row in range(200)]
    said = ["" if row < 50 else "서울" if row < 170 else "부산" for row in range(200)]
    predictions: list[Any] = [Found(text, 0, len(text), 0.0, -1.0) for text in said]
    rows = {"answers": [json.dumps(answers) for answers in gold]}
    metrics = task.scores.metrics(predictions, rows, (), 0.3)
    quality = quality_of(task, Scored("test", rows, predictions, metrics, (), {}), 500, ())
    assert (quality.score, quality.baseline) == (pytest.approx(85), pytest.approx(25))
    low, high = quality.interval or (0.0, 0.0)
    half = 100 * 1.96 * (0.85 * 0.15 / 200) ** 0.5
    assert low == pytest.approx(85 - half, abs=0.2 * half) and high == pytest.approx(85 + half, abs=0.2 * half)
    assert "답이 하나도 없다고만 예측하면 25.0000입니다" in quality.findings[0].text


def test_a_run_that_overfits_is_not_told_to_train_longer() -> None:
    truth = ["긍정", "부정"] * 20
    found = {one.kind: one for one in judged(truth, truth, steps=30, losses=(0.4, 0.6)).findings}
    assert found["few steps"].remedy == "" and "training.epochs를 1로" in found["overfits"].remedy
    assert "training.epochs를 늘리" in judged(truth, truth, steps=30).findings[1].remedy


def test_the_losses_are_those_of_the_epochs(tmp_path: Path) -> None:
    assert validation_losses(tmp_path) == []
    file = MetricsFile(tmp_path)
    file.add({"kind": "eval", "loss": 0.7, "train_loss": 0.9})
    file.add({"kind": "eval", "loss": 0.6})
    file.add({"kind": "train", "loss": 0.5})
    file.add({"kind": "eval", "loss": None, "train_loss": 0.4})
    assert validation_losses(tmp_path) == [0.7]


def test_a_run_says_what_its_score_is_worth(cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path) -> None:
    run = cli("train", "--model_name", tiny_model, "--dataset", reviews, "--output_dir", tmp_path / "run",
              "--epochs", "1", "--set", "training.learning_rate=1e-9")  # fmt: skip
    assert run.code == 0, run.err
    assert "판정" in run.err and "95% 신뢰구간" in run.err and "그보다 낫다고 할 수 없습니다" in run.err
    quality = read_json(tmp_path / "run" / "summary.json")["quality"]
    assert quality["baseline"] == pytest.approx(0.5) and quality["interval"][0] <= quality["score"]
    assert quality["findings"][0]["kind"] == "not learned"
