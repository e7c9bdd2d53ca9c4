"""verify-resume: proves what holds, finds what does not, and leaves the user's folders alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import training_manager
from exceptions import FinetuningError
from finetuning.training import checkpointing
from tests.support.runs import StopAfter


def verify(flags: list[str], output_dir: Path) -> None:
    from finetuning.commands import verify_resume
    from finetuning_app import build_parser, build_session, read_settings

    arguments = build_parser().parse_args(["verify-resume", *flags, "--output_dir", str(output_dir)])
    verify_resume.run(build_session(read_settings(arguments), StopAfter()), arguments)


@pytest.mark.parametrize(
    ("task", "adapter"),
    [("text-classification", "lora"), ("question-answering", "none"), ("text-generation", "none")],
)
def test_it_shows_that_every_bit_is_the_same(
    flags_for: Callable[[str], list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    task: str,
    adapter: str,
) -> None:
    verify([*flags_for(task), "--set", f"model.adapter.method={adapter}"], tmp_path / "models" / "mine")
    said = capsys.readouterr().out
    assert "6스텝을 한 번에" in said and "3스텝에서 멈췄다가" in said
    assert said.count("같음") == 4 and "다름" not in said
    assert "판정: 비트 단위까지 동일합니다" in said
    assert not (tmp_path / "models").exists()
    assert not list(tmp_path.glob(".verify-resume-*"))


def test_a_resume_without_optimizer_state_is_detected(
    flags_for: Callable[[str], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(checkpointing, "restore_optimizer", lambda *_: None)
    with pytest.raises(FinetuningError, match="멈추지 않은 학습과 다릅니다") as error:
        verify(flags_for("text-classification"), tmp_path / "mine")
    assert error.value.exit_code == 1
    assert "가중치" in error.value.where and "옵티마이저 상태" in error.value.where
    assert "다름" in capsys.readouterr().out


def test_a_nondeterministic_device_is_reported_as_such(
    flags_for: Callable[[str], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train_window, count = training_manager.TrainingManager.train_window, iter(range(1000))

    def unsteady(manager: Any, window: Any) -> Any:
        next(parameter for parameter in manager.model.parameters()).data.add_(next(count) * 1e-3)
        return train_window(manager, window)

    monkeypatch.setattr(training_manager.TrainingManager, "train_window", unsteady)
    with pytest.raises(FinetuningError, match="이어서 학습했기 때문이 아닙니다"):
        verify(flags_for("text-classification"), tmp_path / "mine")
