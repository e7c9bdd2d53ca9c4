"""Folders as finished and stopped runs leave them, made without training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any


def write_finished(folder: Path, **changes: Any) -> Path:
    """A finished run's run.json and summary.json, with some values of the summary changed."""
    summary: dict[str, Any] = {
        "task": "text-classification", "model": "klue/roberta-base", "dataset": "./data/nsmc", "steps": 120,
        "best_validation_accuracy": 0.8, "test": {"accuracy": 0.75, "loss": 0.5}, "seconds": 65.0,
        "quality": {
            "metric": "accuracy", "split": "test", "score": 0.75, "interval": [0.7, 0.8], "baseline": 0.5,
            "findings": [{"kind": kind, "text": "", "remedy": ""} for kind in ("learned", "few steps")],
        },
    }  # fmt: skip
    _begin(folder)
    (folder / "summary.json").write_text(json.dumps({**summary, **changes}), encoding="utf-8")
    return folder


def write_stopped(folder: Path, step: int | None, last_step: int = 0) -> Path:
    """A run that ended before its end, with a checkpoint of a step or without one."""
    _begin(folder)
    if step is not None:
        (folder / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
    if last_step:
        (folder / "metrics.jsonl").write_text(json.dumps({"step": last_step, "kind": "train"}) + "\n", encoding="utf-8")
    return folder


def values_in(words: list[str]) -> Mapping[str, str]:
    """What the flags `--set` of a command line give, the last one of a setting."""
    pairs = (word.split("=", 1) for flag, word in pairwise(words) if flag == "--set")
    return {key: value for key, value in pairs}


def _begin(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"output_dir": folder.name, "number": 1}), encoding="utf-8")
