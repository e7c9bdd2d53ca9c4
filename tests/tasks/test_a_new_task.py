"""A new task is one file and one row of the registry: a toy task is added to a copy of the project and trained."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT

# Predicts whether a sentence is long. It takes three parts of text classification and one metric of its own.
TASK = '''"""Whether a sentence is long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finetuning.config.schema import Settings
from finetuning.tasks.base import Task
from finetuning.tasks.classification.single import LabelEncoder, LabelPresenter, LabelReader, LabelScorer
from finetuning.types import Column


class SentenceLength(Task):
    """Long or short, without a label in the data."""

    name = "sentence-length"
    auto_class = "AutoModelForSequenceClassification"
    pipeline = "text-classification"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.reads = LengthReader(settings)
        self.encodes = LabelEncoder(settings)
        self.scores = LengthScorer(settings)
        self.shows = LabelPresenter()


class LengthReader(LabelReader):
    """Reads a text and labels it by its length."""

    def columns(self, available: Sequence[str]) -> tuple[Column, ...]:
        """Return the text's column."""
        return (self.column("text", "text_column"),)

    def prepare(self, row: dict[str, Any]) -> dict[str, Any]:
        """Add the label."""
        return {**row, "label": "long" if len(row["text"]) > 24 else "short"}


class LengthScorer(LabelScorer):
    """Cross-entropy, with the share of long sentences that are found."""

    best_metric = "long_recall"

    def metrics(
        self, predictions: Sequence[Any], rows: Mapping[str, Sequence[Any]], label_names: Sequence[str], loss: float
    ) -> dict[str, float]:
        """Compute the metrics of classification and the recall of `long`."""
        found = super().metrics(predictions, rows, label_names, loss)
        pairs = zip(predictions, rows["label"], strict=True)
        hits = [label_names[int(scores.argmax())] == "long" for scores, label in pairs if label == "long"]
        return {**found, "long_recall": sum(hits) / max(1, len(hits))}
'''
ROW = '    ("sentence_length", "SentenceLength"),\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project's code with the toy task in it."""
    copy = tmp_path / "project"
    shutil.copytree(ROOT / "finetuning", copy / "finetuning", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "examples", copy / "examples")
    for file in [*ROOT.glob("*.py"), ROOT / "config.yaml"]:
        shutil.copy(file, copy)
    (copy / "finetuning" / "tasks" / "sentence_length.py").write_text(TASK, encoding="utf-8")
    registry = copy / "finetuning" / "tasks" / "registry.py"
    rows = registry.read_text(encoding="utf-8")
    assert rows.count("_ROWS = (\n") == 1
    registry.write_text(rows.replace("_ROWS = (\n", f"_ROWS = (\n{ROW}"), encoding="utf-8")
    return copy


@pytest.mark.slow
def test_a_new_task_is_one_file_and_one_row(project: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> Any:
        return subprocess.run(
            [sys.executable, "finetuning_app.py", *arguments], cwd=project, capture_output=True, text=True,
            encoding="utf-8", timeout=300, check=False, env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip

    output_dir = tmp_path / "out" / "model"
    trained = run(
        "--task", "Sentence Length", "--model_name", "examples/encoder", "--dataset", "examples/reviews",
        "--output_dir", str(output_dir), "--epochs", "1", "--batch_size", "16", "--max_length", "64",
        "--set", "data.train_rows=96", "--set", "data.validation_rows=40", "--set", "data.test_rows=40",
        "--set", f"data.dataset_cache_dir={tmp_path / 'cache'}",
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    summary = json.loads((output_dir / "summary.json").read_text(encoding="utf-8"))
    assert summary["task"] == "sentence-length"
    assert 0 <= summary["test"]["long_recall"] <= 1
    assert "best_validation_long_recall" in summary
    config = json.loads((output_dir / "config.json").read_text(encoding="utf-8"))
    assert config["label2id"] == {"long": 0, "short": 1}

    file = tmp_path / "in.txt"
    file.write_text("좋아요\n", encoding="utf-8")
    asked = run("predict", "--task", "sentence-length", "--output_dir", str(output_dir), "--input", str(file))
    assert asked.returncode == 0, asked.stderr
    assert set(config["label2id"]) & set(json.loads(asked.stdout).values())


def test_nothing_is_loaded_from_the_users_folder(tmp_path: Path) -> None:
    (tmp_path / "finetuning" / "tasks").mkdir(parents=True)
    (tmp_path / "finetuning" / "tasks" / "sentence_length.py").write_text(TASK, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, str(ROOT / "finetuning_app.py"), "plan", "--task", "sentence-length"], cwd=tmp_path,
        capture_output=True, text=True, encoding="utf-8", timeout=120, check=False,
    )  # fmt: skip
    assert run.returncode == 2
    assert "'sentence-length' 태스크가 없습니다." in run.stderr
