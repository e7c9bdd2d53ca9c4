"""What may be done next fits the task and what there is, and is quoted for the shell."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from finetuning.config.schema import Settings
from finetuning.reporting.next_steps import next_commands, trained_model
from finetuning.tasks.registry import task_classes

MORE = ("--config", "mine.yaml", "--resume", "--epochs", "6")


def names(task: str, is_adapter: bool = False, **sections: dict[str, object]) -> list[str]:
    settings = Settings.model_validate(sections)
    model = trained_model(settings, task, Path("models/run"), "test", is_adapter, MORE)
    return [step.name for step in next_commands(model)]


@pytest.mark.parametrize("task", task_classes())
def test_every_task_can_be_used_scored_and_continued(task: str) -> None:
    found = names(task)
    assert found[-2:] == ["evaluate", "resume"]
    assert ("chat" in found) == (task in {"text-generation", "preference"})
    assert ("predict" in found) == (task != "fill-mask")


def test_only_what_there_is_is_told() -> None:
    assert "export" in names("text-classification", is_adapter=True)
    assert "export" not in names("text-classification")
    assert "chat" not in names("text-generation", text_generation={"format": "text"})


def test_names_with_spaces_stay_one_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["finetuning_app.py"])
    settings = Settings.model_validate({"data": {"dataset_name": "내 데이터/a.csv"}})
    model = trained_model(
        settings, "text-classification", Path("내 모델"), "validation", is_adapter=False, resumed_by=MORE
    )
    steps = {step.name: shlex.split(step.command) for step in next_commands(model)}
    assert steps["evaluate"][2:5] == ["evaluate", "--output_dir", "내 모델"]
    assert steps["evaluate"][5:] == ["--dataset", "내 데이터/a.csv", "--split", "validation"]
    assert steps["resume"][-2:] == ["--epochs", "6"]


def test_data_of_several_files_are_named_by_the_settings_of_the_run() -> None:
    settings = Settings.model_validate({"data": {"train_file": "a.csv", "test_file": "b.csv"}})
    model = trained_model(settings, "text-classification", Path("run"), "test", is_adapter=False, resumed_by=MORE)
    (evaluate,) = [step.command for step in next_commands(model) if step.name == "evaluate"]
    assert "--config" in evaluate and "settings.yaml" in evaluate


def test_a_run_that_got_worse_is_not_continued() -> None:
    model = trained_model(Settings(), "text-classification", Path("run"), "test", is_adapter=False, resumed_by=())
    assert "resume" not in [step.name for step in next_commands(model)]
