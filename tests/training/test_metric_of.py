"""The metric that models are compared by, where the weights have become NaN."""

from __future__ import annotations

import json
import math
from pathlib import Path

from finetuning.training.best_model import metric_of
from tests.support.cli import Cli, arguments_for


def test_accuracy_of_a_model_without_a_finite_loss_does_not_count() -> None:
    assert metric_of({"loss": 0.7, "accuracy": 0.4}, "accuracy") == 0.4
    assert math.isnan(metric_of({"loss": math.nan, "accuracy": 0.5}, "accuracy"))
    assert math.isnan(metric_of({"loss": math.inf, "accuracy": 0.5}, "accuracy"))


def test_a_run_whose_weights_become_nan_does_not_end_well(
    cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path
) -> None:
    flags = arguments_for(
        tiny_model, reviews, tmp_path / "model", "--weight_decay", "1e300", "--set", "data.train_rows=40"
    )
    run = cli(*flags, "--epochs", "1")
    assert run.code == 4, run.err
    assert "쓸 수 있는 모델이 나오지 않았습니다" in run.err
    best = tmp_path / "model" / "best.json"
    assert json.loads(best.read_text(encoding="utf-8"))["metric"] is None
