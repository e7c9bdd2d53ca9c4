"""The verdict on a run beside the published score of its recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetuning.config.schema import Settings
from finetuning.reporting.published import judge

EXPECTED = {"metric": "accuracy", "score": 0.9, "band": 0.01, "model": "klue/roberta-base", "rows": 1000,
            "test_rows": 500, "source": "KLUE README, https://github.com/KLUE-benchmark/KLUE"}  # fmt: skip
ROWS = {"train": 900, "validation": 100, "test": 500}


def verdict_on(accuracy: float, rows: dict[str, int] = ROWS, name: str = "klue/roberta-base", **data: Any) -> Any:
    settings = Settings.model_validate({"model": {"name": name}, "data": data, "expectation": EXPECTED})
    return judge(settings, rows, {"loss": 0.3, "accuracy": accuracy})


@pytest.mark.parametrize(
    ("accuracy", "outcome", "said"),
    [
        (0.95, "reproduced", "재현했습니다. 정확도 0.9500 (공개된 점수: 정확도 0.9000"),
        (0.8901, "reproduced", "0.8900 이상이면 재현"),
        (0.8899, "short", "못 미칩니다. 정확도 0.8899"),
    ],
)
def test_the_band_decides_whether_a_score_is_reproduced(accuracy: float, outcome: str, said: str) -> None:
    verdict = verdict_on(accuracy)
    assert (verdict.outcome, verdict.measured) == (outcome, accuracy)
    assert said in verdict.text and "https://github.com/KLUE-benchmark/KLUE" in verdict.text


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": "klue/bert-base"}, "klue/bert-base입니다"),
        ({"train_rows": 1000}, "일부만"),
        ({"rows": {"train": 500, "validation": 100, "test": 500}}, "1,000행이어야 하는데 600행"),
        ({"rows": {"train": 400, "validation": 100, "test": 500}, "test_split": 0.4}, None),
        ({"rows": {"train": 1500, "validation": 100, "test": 500}}, "1,000행이어야 하는데 1,600행"),
        ({"rows": {"train": 900, "validation": 100, "test": 50}}, "테스트 데이터가 500행이어야 하는데 50행"),
        ({"rows": {"train": 900, "validation": 100}}, "테스트 데이터가 500행이어야 하는데 0행"),
        ({"rows": {"train": 895, "validation": 90, "test": 495}}, None),
    ],
)
def test_a_run_with_another_model_or_other_data_is_not_compared(changed: dict[str, Any], said: str | None) -> None:
    verdict = verdict_on(0.95, **changed)
    assert verdict.outcome == ("not comparable" if said else "reproduced")
    assert said is None or (verdict.measured is None and said in verdict.text)


def test_a_missing_metric_is_reported() -> None:
    settings = Settings.model_validate({"model": {"name": "klue/roberta-base"}, "expectation": EXPECTED})
    verdict = judge(settings, ROWS, {"loss": 0.3, "pearson": 0.9})
    assert verdict is not None and "loss, pearson" in verdict.text


def test_without_an_expectation_there_is_no_verdict() -> None:
    assert judge(Settings(), ROWS, {"accuracy": 0.9}) is None


@pytest.mark.parametrize("folder", ["klue/roberta-base", "klue-roberta-base", "klue--roberta-base"])
def test_a_downloaded_folder_is_the_model_that_it_says(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(parents=True)
    assert verdict_on(0.95, name=str(tmp_path / folder)).outcome == "reproduced"
    other = tmp_path / "roberta-base"
    other.mkdir()
    assert verdict_on(0.95, name=str(other)).outcome == "not comparable"
