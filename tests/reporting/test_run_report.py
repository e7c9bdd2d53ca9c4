"""The run report: log, summary.json and model card state the same facts, of all processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetuning.config.schema import Settings
from finetuning.reporting.model_card import model_card
from finetuning.reporting.profile import PhaseTimes
from finetuning.reporting.quality import Finding, Quality
from finetuning.reporting.run_report import (
    Background,
    EvaluationFacts,
    Hardware,
    MemoryFacts,
    RunReport,
    TrainingFacts,
    build_report,
    log_lines,
    summary,
)
from finetuning.tasks.registry import find_task

ROWS = {"train": 900, "validation": 100, "test": 50}
METRICS = {"loss": 0.25, "accuracy": 0.875, "macro_f1": 0.8}


def report_of(
    output_dir: Path, *, processes: int = 1, profile: PhaseTimes | None = None, **sections: dict[str, Any]
) -> RunReport:
    settings = Settings.model_validate(
        {**sections, "model": {"output_dir": str(output_dir), **sections.get("model", {})}}
    )
    return build_report(
        settings,
        find_task(settings),
        ROWS,
        training=TrainingFacts(24, 16, 0.82, {"loss": 0.3}, 61.26, profile),
        evaluation=EvaluationFacts("test", METRICS, ["혼동 행렬"], ["예측 예시", "  좋다 → 긍정"]),
        hardware=Hardware("cpu", processes, "bf16"),
        memory=MemoryFacts(peak=3 * 2**30, limit=16 * 2**30, before_model=2**28, estimated=2**31),
        quality=Quality("accuracy", "test", 0.875, (0.78, 0.95), 0.5, (Finding("few steps", "24스텝뿐입니다."),)),
        background=Background(),
    )


@pytest.mark.parametrize(("processes", "examples"), [(1, 20), (2, 40), (3, 60)])
def test_the_window_counts_all_processes(tmp_path: Path, processes: int, examples: int) -> None:
    data, memory = {"batch_size": 5}, {"gradient_accumulation_steps": 4}
    report = report_of(tmp_path / "run", processes=processes, data=data, memory=memory)
    assert f"스텝당 예제 {examples}개" in model_card(report)
    assert f"프로세스 {processes}개" in model_card(report)
    assert summary(report)["window"] == {
        "batch_size": 5, "gradient_accumulation_steps": 4, "processes": processes, "examples": examples,
    }  # fmt: skip


def test_every_rendering_states_the_same_facts(tmp_path: Path) -> None:
    report = report_of(tmp_path / "run")
    card, log, facts = model_card(report), "\n".join(log_lines(report)), summary(report)
    assert facts["test"] == METRICS and facts["rows"] == ROWS
    assert (facts["steps"], facts["best_step"], facts["best_validation_accuracy"]) == (24, 16, 0.82)
    assert (facts["seconds"], facts["peak_memory_bytes"], facts["device"]) == (61.3, 3 * 2**30, "cpu")
    assert "test 50행: 손실 0.2500, 정확도 0.8750, macro-F1 0.8000" in log
    assert "1분 1초" in log and "3.00 GiB" in log and "스텝 16" in log
    assert (
        "| 정확도 | 0.8750 |" in card and "test 데이터 50행" in card and "스텝 16의 모델 (검증 정확도 0.8200)" in card
    )
    assert json.loads(json.dumps(facts)) == facts


def test_values_that_were_not_measured_are_left_out(tmp_path: Path) -> None:
    assert {"profile", "expectation"} & summary(report_of(tmp_path)).keys() == set()
    profiled = summary(report_of(tmp_path, profile=PhaseTimes(24, {"forward": 1.5})))
    assert profiled["profile"] == {"windows": 24, "seconds": {"forward": 1.5}}


def test_the_verdict_on_a_published_score_is_in_all_three(tmp_path: Path) -> None:
    report = report_of(tmp_path, expectation={"metric": "accuracy", "score": 0.88, "source": "KLUE"})
    assert report.verdict is not None and report.verdict.outcome == "reproduced"
    assert summary(report)["expectation"]["verdict"] == "reproduced"
    assert report.verdict.text in model_card(report)
    assert report.verdict.text in log_lines(report)


def test_the_card_names_no_local_folder(tmp_path: Path) -> None:
    for name in ("my-model", "my-data"):
        (tmp_path / "private" / name).mkdir(parents=True)
    model, data = (str(tmp_path / "private" / name) for name in ("my-model", "my-data"))
    report = report_of(
        tmp_path / "run",
        model={"name": model, "adapter": {"method": "lora"}},
        data={"dataset_name": data},
        expectation={"metric": "accuracy", "score": 0.88, "model": "klue/roberta-base"},
    )
    card = model_card(report)
    assert "`my-model`" in card and "`my-data`" in card
    assert "private" not in card
    assert summary(report)["model"] == model


@pytest.mark.parametrize(("method", "said"), [("none", "pipeline("), ("lora", "PeftModel.from_pretrained(model")])
def test_the_card_says_how_to_load_the_model(tmp_path: Path, method: str, said: str) -> None:
    card = model_card(report_of(tmp_path, model={"adapter": {"method": method}}))
    assert said in card
    assert ("export" in card) == (method == "lora")
