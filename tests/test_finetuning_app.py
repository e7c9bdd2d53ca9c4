"""The command line: flags of one command, where settings come from, and the command that resumes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from exceptions import SettingsError, StopRequested
from finetuning.commands.command_line import build_parser, resume_command
from finetuning.config.schema import Settings
from finetuning_app import StopSignal, main, read_settings


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "--input", "new.csv"],
        ["evaluate", "--resume"],
        ["train", "--compare", "a", "b"],
        ["train", "--split", "test"],
        ["--output", "out.csv"],
        ["chat", "--checkpoint_path", "x"],
    ],
)
def test_a_flag_of_another_command_is_refused(words: list[str]) -> None:
    flag = next(word for word in words if word.startswith("--"))
    with pytest.raises(SettingsError, match=f"{flag} 플래그는") as error:
        build_parser().parse_args(words)
    assert "명령의 플래그입니다" in error.value.remedy


def test_help_is_korean(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["--help"])
    shown = capsys.readouterr().out
    assert shown.startswith("사용법: ")
    for heading in ("usage", "options", "positional"):
        assert heading not in shown


def test_unknown_arguments_are_reported_in_korean() -> None:
    with pytest.raises(SettingsError, match="알 수 없는 인자입니다: extra"):
        build_parser().parse_args(["train", "extra"])


@pytest.mark.parametrize(
    "words",
    [
        ["--epochs", "3", "--resume", "--checkpoint_path", "old/step-1"],
        ["--epochs", "3", "--checkpoint_path=old/step-1", "--resume"],
        ["--epochs", "3"],
    ],
)
def test_the_resume_command_names_no_old_checkpoint(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["tools/finetuning_app.py", *words])
    assert resume_command(words) == "python tools/finetuning_app.py --epochs 3 --resume"


def test_a_saved_model_brings_its_settings_but_a_plan_is_of_a_run_to_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    saved = Settings.model_validate({"data": {"max_length": 77}})
    (tmp_path / "model" / "settings.yaml").write_text(saved.to_yaml(), encoding="utf-8")
    lengths = {
        command: read_settings(build_parser().parse_args([command, "--output_dir", "~/model"])).data.max_length
        for command in ("train", "plan", "evaluate", "predict", "chat", "export")
    }
    default = Settings().data.max_length
    assert lengths == {"train": default, "plan": default, "evaluate": 77, "predict": 77, "chat": 77, "export": 77}


@pytest.fixture
def usual_signals() -> Iterator[None]:
    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("usual_signals")
@pytest.mark.skipif(os.name != "posix", reason="there is no SIGHUP")
def test_hanging_up_twice_waits_for_the_state_and_a_second_interrupt_does_not(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ended: list[int] = []
    monkeypatch.setattr("finetuning_app.os._exit", ended.append)
    stop = StopSignal()
    stop.patient = True
    for number, pending in ((signal.SIGHUP, 1), (signal.SIGHUP, 1), (signal.SIGTERM, 15), (signal.SIGHUP, 15)):
        os.kill(os.getpid(), number)
        assert (stop.pending(), ended) == (pending, [])
    os.kill(os.getpid(), signal.SIGINT)
    assert ended == [130]
    capfd.readouterr()


@pytest.mark.usefixtures("usual_signals")
@pytest.mark.skipif(os.name != "posix", reason="there is no SIGHUP")
def test_nohup_is_respected() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    StopSignal()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


@pytest.mark.usefixtures("usual_signals")
def test_system_without_hang_up_signals_has_the_other_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(signal, "SIGHUP", raising=False)
    stop = StopSignal()
    with pytest.raises(StopRequested):
        signal.raise_signal(signal.SIGTERM)
    assert stop.pending() is None


@pytest.mark.parametrize("where", ["StopSignal", "build_parser", "read_settings"])
def test_memory_that_ends_before_anything_is_read_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(f"finetuning_app.{where}", fail)
    assert main(["plan"]) == 5
    assert "메모리가 부족합니다" in capsys.readouterr().err


@pytest.mark.usefixtures("usual_signals")
def test_stop_before_the_signals_are_handled_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise StopRequested(signal.SIGINT)

    monkeypatch.setattr("finetuning_app.StopSignal", interrupted)
    assert main(["train"]) == 130
    assert "저장할 학습 상태는 없습니다" in capsys.readouterr().err
