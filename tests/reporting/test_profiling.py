"""logging.profile: where the time of a run went, and a trace that a profile viewer reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.runs import StopAfter, run_train

PHASES = {"waiting_for_data", "forward", "backward", "optimizer", "logging"}


@pytest.mark.parametrize("rows", [80, 36])  # the second run ends within the steps that are traced
def test_a_profiled_run_says_where_its_time_went(
    rows: int, tiny_model: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetuning.reporting.log.set_up_logging", lambda *_: None)
    output_dir = tmp_path / "model"
    run_train(
        [
            "--model_name", str(tiny_model), "--dataset", str(reviews), "--output_dir", str(output_dir),
            "--epochs", "1", "--batch_size", "4", "--gradient_accumulation_steps", "2", "--max_length", "48",
            "--set", "logging.progress_bar=false", "--set", "logging.profile=true", "--set", f"data.train_rows={rows}",
            "--set", f"data.dataset_cache_dir={tmp_path / 'cache'}",
        ],
        StopAfter(),
    )  # fmt: skip
    summary = json.loads((output_dir / "summary.json").read_text(encoding="utf-8"))
    found = summary["profile"]
    assert found["windows"] == summary["steps"]
    assert set(found["seconds"]) == PHASES
    assert all(seconds >= 0 for seconds in found["seconds"].values())
    assert sum(found["seconds"].values()) < summary["seconds"]
    events = json.loads((output_dir / "trace.json").read_text(encoding="utf-8"))["traceEvents"]
    assert {event.get("name") for event in events} >= {"forward", "backward", "optimizer"}


def test_a_run_that_is_not_profiled_has_no_trace(
    tiny_model: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetuning.reporting.log.set_up_logging", lambda *_: None)
    output_dir = tmp_path / "model"
    run_train(
        [
            "--model_name", str(tiny_model), "--dataset", str(reviews), "--output_dir", str(output_dir),
            "--epochs", "1", "--max_length", "48", "--set", "logging.progress_bar=false",
            "--set", f"data.dataset_cache_dir={tmp_path / 'cache'}",
        ],
        StopAfter(),
    )  # fmt: skip
    assert "profile" not in json.loads((output_dir / "summary.json").read_text(encoding="utf-8"))
    assert not (output_dir / "trace.json").exists()
