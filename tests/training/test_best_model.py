"""Going back to an earlier checkpoint: a better best model stays, and a model that is not the best is not trusted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest

from finetuning.tasks.classification.single import LabelScorer
from tests.support.cli import read_json
from tests.support.runs import StopAfter, run_train

Flags = Callable[[str], list[str]]


def scoring(monkeypatch: pytest.MonkeyPatch, *scores: float) -> None:
    """Make the evaluations to come score as given, and the later ones as the last."""
    real, coming = LabelScorer.metrics, chain(scores, repeat(scores[-1]))

    def metrics(scorer: LabelScorer, *args: Any) -> dict[str, float]:
        return {**real(scorer, *args), scorer.best_metric: next(coming)}

    monkeypatch.setattr(LabelScorer, "metrics", metrics)


@pytest.fixture
def run(flags_for: Flags, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], Path]:
    """The flags and the folder of a run of three epochs, of which the second is the best."""
    output_dir = tmp_path / "run" / "model"
    flags = [*flags_for("text-classification"), "--epochs", "3", "--set", "training.save_total_limit=9"]
    flags += ["--output_dir", str(output_dir)]
    scoring(monkeypatch, 0.5, 0.75, 0.6)
    run_train(flags, StopAfter())
    return flags, output_dir


def test_the_saved_model_is_recorded(run: tuple[list[str], Path]) -> None:
    _, output_dir = run
    recorded, summary = read_json(output_dir / "best.json"), read_json(output_dir / "summary.json")
    assert recorded["metric"] == 0.75
    assert f"step-{recorded['step']:08d}" == sorted(path.name for path in (output_dir / "checkpoints").iterdir())[1]
    assert summary["best_step"] == recorded["step"]


@pytest.mark.parametrize(("later", "is_replaced"), [((0.5, 0.6, 0.7), False), ((0.5, 0.6, 0.8), True)])
def test_a_better_model_of_a_later_step_stays(
    run: tuple[list[str], Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    later: tuple[float, ...], is_replaced: bool,
) -> None:  # fmt: skip
    flags, output_dir = run
    first = min((output_dir / "checkpoints").iterdir())
    before, recorded = (output_dir / "model.safetensors").read_bytes(), read_json(output_dir / "best.json")
    scoring(monkeypatch, *later)
    run_train([*flags, "--resume", "--checkpoint_path", str(first)], StopAfter())
    assert "체크포인트보다 뒤인 스텝" in caplog.text
    assert "바꾸지 않습니다" in caplog.text
    after = read_json(output_dir / "best.json")
    assert ((output_dir / "model.safetensors").read_bytes() != before) == is_replaced
    assert after["metric"] == (0.8 if is_replaced else 0.75)
    assert (after != recorded) == is_replaced
    assert read_json(output_dir / "summary.json")["best_step"] == after["step"]


def test_a_model_that_is_not_the_checkpoints_best_is_not_taken_for_it(
    run: tuple[list[str], Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    flags, output_dir = run
    second = sorted((output_dir / "checkpoints").iterdir())[2]
    (output_dir / "best.json").write_text(json.dumps({"step": 1, "metric": 0.1}), encoding="utf-8")
    shutil.copy(output_dir / "model.safetensors", output_dir / "model.safetensors.kept")
    scoring(monkeypatch, 0.6, 0.7)
    run_train([*flags, "--resume", "--checkpoint_path", str(second)], StopAfter())
    assert "가장 좋은 모델(스텝" in caplog.text and "아닙니다" in caplog.text
    assert read_json(output_dir / "best.json")["metric"] == 0.6
