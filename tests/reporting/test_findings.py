"""What is known before a run: each finding with the setting that changes it, and the verdict repeats what lasts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from finetuning.config.preset import ROWS, Trained, preset_values, row_for
from finetuning.config.schema import Settings
from finetuning.reporting.findings import Known, foreseen
from finetuning.reporting.quality import Scored, Untrained, quality_of
from finetuning.tasks.registry import find_task

PLENTY = {"긍정": 300, "부정": 286}


def known(settings: dict[str, Any] | None = None, **facts: Any) -> Known:
    made, row = Settings.model_validate(settings or {}), ROWS[0]
    values = preset_values(row, made, frozenset(), 586, 1)
    return replace(Known(made, "full", row, values, 586, 1, PLENTY, 0, 512, {}), **facts)


def kinds(findings: Any) -> list[str]:
    return [finding.kind for finding in findings]


def test_thirty_steps_are_few_and_the_preset_is_what_to_do() -> None:
    (few,) = foreseen(known())
    assert "30스텝뿐입니다" in few.text and "배치 32, 학습률 5e-5, warm-up 0.1입니다" in few.text
    assert "--set training.preset=auto" in few.remedy and "407스텝" in few.remedy
    (told,) = foreseen(known(preset={}))
    assert "preset" not in told.remedy and "training.epochs" in told.remedy
    assert foreseen(known({"training": {"epochs": 30}})) == []


def test_a_rate_far_from_the_usual_one_is_named() -> None:
    lora = row_for(Trained("causal", "lora", "AutoModelForCausalLM"))
    enough = {"training": {"epochs": 30}}
    (low,) = foreseen(known(enough, method="lora", row=lora))
    assert low.kind == "low learning rate" and "LoRA에 흔히 쓰는 0.0002의 10분의 1입니다" in low.text
    assert "--learning_rate 0.0002를" in low.remedy
    assert kinds(foreseen(known({"training": {"epochs": 30, "learning_rate": 1e-3}}))) == ["high learning rate"]


def test_leaked_rows_cut_rows_and_rare_labels_are_named() -> None:
    enough = {"training": {"epochs": 30}}
    found = foreseen(known(enough, leaked={"test": 3}, cut=100, train_labels={**PLENTY, "중립": 2}))
    assert kinds(found) == ["leaked rows", "rows cut", "rare labels"]
    assert "테스트 데이터 3행" in found[0].text
    assert "100개(17%)" in found[1].text and "모델의 한도(512 토큰)" in found[1].text
    assert "training.class_weights" in found[2].remedy
    (cut,) = foreseen(known({**enough, "data": {"max_length": 512}}, cut=100))
    assert "data.max_length를 늘리세요" in cut.remedy and "long_documents를 pool로" in cut.remedy
    (pair,) = foreseen(known({**enough, "data": {"max_length": 512, "text_pair_column": "other"}}, cut=100))
    assert "long_documents" not in pair.remedy


def test_a_weak_run_is_led_to_the_preset_and_a_loss_of_guessing_is_named() -> None:
    task, names, truth = find_task(Settings()), ("긍정", "부정"), ["긍정", "부정"] * 10
    predictions: list[Any] = [np.array([0.51, 0.49])] * 20
    metrics = {**task.scores.metrics(predictions, {"label": truth}, names, 0.69)}
    quality = quality_of(task, Scored("test", {"label": truth}, predictions, metrics, names, PLENTY), 30, (), known())
    assert {"not learned", "few steps", "loss of guessing", "score for a paper"} <= set(kinds(quality.findings))
    assert "--set training.preset=auto" in quality.findings[0].remedy


@pytest.mark.parametrize(("after", "kind"), [(2.1, "learned"), (3.2, "not learned")])
def test_a_language_model_is_compared_with_the_untrained_one(after: float, kind: str) -> None:
    task = find_task(Settings.model_validate({"model": {"task": "text-generation"}}))
    scored = Scored("validation", {}, [], {"loss": after}, (), {})
    quality = quality_of(task, scored, 500, (), None, Untrained(3.2, after, 200))
    assert quality.findings[0].kind == kind and quality.baseline == 3.2
    assert "200행의 손실: 학습 전 3.2000" in quality.findings[0].text


def test_regression_is_compared_with_the_mean() -> None:
    task = find_task(Settings.model_validate({"model": {"task": "text-regression"}}))
    truth, random = [str(number / 4) for number in range(20)], np.random.default_rng(0)
    predictions: list[Any] = [float(label) + random.normal(0, 0.1) for label in truth]
    metrics = task.scores.metrics(predictions, {"label": truth}, (), 0.1)
    quality = quality_of(
        task, Scored("test", {"label": truth}, predictions, metrics, (), {"1.0": 3, "3.0": 1}), 500, ()
    )
    assert quality.baseline == 0 and quality.interval is not None and quality.interval[0] > 0.9
    assert "항상 학습 데이터의 평균(1.5)으로만 예측하면" in quality.findings[0].text


def test_a_run_that_stopped_early_is_not_told_of_few_steps_and_a_remedy_stands_once() -> None:
    task, names, truth = find_task(Settings()), ("긍정", "부정"), ["긍정", "부정"] * 10
    predictions: list[Any] = [np.array([0.51, 0.49])] * 20
    metrics = {**task.scores.metrics(predictions, {"label": truth}, names, 0.69)}
    scored = Scored("test", {"label": truth}, predictions, metrics, names, PLENTY)
    remedies = [finding.remedy for finding in quality_of(task, scored, 30, (), known()).findings if finding.remedy]
    assert len(remedies) == len(set(remedies)) > 1
    ended = quality_of(task, scored, 20, (), known({"training": {"preset": "auto"}}, preset={}))
    assert "few steps" not in kinds(ended.findings) and "평가할 행(지금 20행)" in ended.findings[0].remedy
