"""The program run as a user runs it, through the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml


@dataclass(frozen=True)
class Run:
    """Result of a command."""

    code: int
    out: str
    err: str


Cli = Callable[..., Run]


def arguments_for(model: Path, data: Path, output_dir: Path, *more: object) -> list[str]:
    """A short run with dropout, three epochs and a last window that is not whole (72 examples, windows of 10)."""
    return [
        "--model_name", str(model), "--dataset", str(data), "--output_dir", str(output_dir), "--batch_size", "5",
        "--gradient_accumulation_steps", "2", "--learning_rate", "3e-3", "--max_length", "64",
        "--set", "logging.report=false",
        "--set", "logging.log_steps=3", "--set", f"data.dataset_cache_dir={output_dir.parent / 'cache'}",
        *map(str, more),
    ]  # fmt: skip


def without_report(words: list[str]) -> list[str]:
    """The words of a command, with the report turned off where they do not name it."""
    place = int(bool(words) and not words[0].startswith("-"))
    command = words[0] if place else "train"
    if command not in ("train", "evaluate") or any("logging.report=" in word for word in words):
        return words
    return [*words[:place], "--set", "logging.report=false", *words[place:]]


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def data_flags(output_dir: Path) -> list[str]:
    """The data that a model was trained on, and its cache, as the user names them to evaluate."""
    data = yaml.safe_load((output_dir / "settings.yaml").read_text(encoding="utf-8"))["data"]
    return ["--dataset", data["dataset_name"], "--set", f"data.dataset_cache_dir={data['dataset_cache_dir']}"]


def check_evaluate_repeats_training(cli: Cli, output_dir: Path) -> dict[str, Any]:
    """Evaluate in another process; return the metrics on test after checking that training reported the same."""
    run = cli("evaluate", "--output_dir", output_dir, *data_flags(output_dir), "--split", "test")
    assert run.code == 0, run.err
    saved, reported = read_json(output_dir / "metrics-test.json"), read_json(output_dir / "summary.json")["test"]
    assert {name: saved[name] for name in reported} == pytest.approx(reported, abs=1e-6)
    return dict(saved)
