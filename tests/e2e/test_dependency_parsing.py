"""Dependency parsing in KLUE-DP's shape through the command line: train, evaluate, and parse a plain sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cli import Cli
from tests.support.paths import ROOT
from tests.support.runs import data_of


def test_from_training_to_a_parsed_sentence(cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    data, output_dir = data_of("dependency-parsing", tmp_path), tmp_path / "model"
    flags = ["--set", f"data.dataset_cache_dir={tmp_path / 'cache'}", "--set", "logging.progress_bar=false"]
    run = cli(
        "--config", ROOT / "recipes" / "klue-dp.yaml", "--model_name", tiny_model, "--dataset", data,
        "--output_dir", output_dir, "--learning_rate", "5e-3", "--epochs", "3", "--batch_size", "4", *flags,
        "--set", "data.test_split=0.2", "--no-mixed_precision",
    )  # fmt: skip
    assert run.code == 0, run.err
    assert "바로 다음 어절" in run.err  # what is had without training
    reported = json.loads((output_dir / "summary.json").read_text(encoding="utf-8"))["test"]
    assert reported["uas"] == 1.0  # every word of these sentences stands beside its head
    run = cli("evaluate", "--output_dir", output_dir, "--dataset", data, "--split", "test", *flags)
    assert run.code == 0, run.err
    saved = json.loads((output_dir / "metrics-test.json").read_text(encoding="utf-8"))
    assert {name: saved[name] for name in reported} == pytest.approx(reported, abs=1e-6)
    run = cli("predict", "--output_dir", output_dir, stdin="배우 연기가 훌륭하다 1\n")
    assert run.code == 0, run.err
    words = json.loads(run.out)["words"]
    assert [word["word"] for word in words] == ["배우", "연기가", "훌륭하다", "1"]
    assert [word["head"] for word in words] == [2, 3, 4, 0]
