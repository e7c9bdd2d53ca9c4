"""The command line: flags of one command, where settings come from, and the command that resumes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config_manager import ConfigManager
from exceptions import SettingsError, StopRequested
from finetuning.commands.command_line import build_parser, resume_command
from finetuning.commands.named_data import check_data_named
from finetuning.commands.stop_signal import StopSignal
from finetuning.config.schema import DataSettings, Settings
from finetuning_app import main, read_settings
from tests.support.paths import ROOT


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
    ("words", "remedy"),
    [
        (["runs", "models", "--html", "page.html"], "--html은 값을 받지 않습니다. 뒤의 page.html을 지우세요."),
        (["train", "--mixed_precision", "true"], "--mixed_precision은 값을 받지 않습니다. 뒤의 true를 지우세요."),
        (["train", "--mixed_precision", "false"], "끄려면 --no-mixed_precision 플래그를 쓰세요."),
    ],
)
def test_a_value_behind_a_flag_that_takes_none_is_not_said_to_lack_quotes(words: list[str], remedy: str) -> None:
    with pytest.raises(SettingsError) as error:
        build_parser().parse_args(words)
    assert remedy in error.value.remedy and "따옴표" not in error.value.remedy


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
    monkeypatch.setattr("shutil.which", lambda _: sys.executable)
    assert resume_command(words) == "python tools/finetuning_app.py --epochs 3 --resume"


def test_the_resume_command_calls_the_interpreter_that_has_the_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `make train`, no environment is active: `python` is another one, or there is none."""
    monkeypatch.setattr("sys.argv", ["finetuning_app.py"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.executable", str(tmp_path / ".venv" / "bin" / "python"))
    for other in (None, "/usr/bin/python"):
        monkeypatch.setattr("shutil.which", lambda _, other=other: other)
        assert resume_command([]) == f"{Path('.venv/bin/python')} finetuning_app.py --resume"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert resume_command([]).startswith(str(tmp_path))


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
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGXCPU")  # Windows has the first two
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:  # nohup around the tests would have them ignored
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("usual_signals")
@pytest.mark.skipif(os.name != "posix", reason="there is no SIGHUP")
def test_hanging_up_twice_waits_for_the_state_and_a_second_interrupt_does_not(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ended: list[int] = []
    monkeypatch.setattr("finetuning.commands.stop_signal.os._exit", ended.append)
    stop = StopSignal()
    stop.patient = True
    for number, pending in ((signal.SIGHUP, 1), (signal.SIGHUP, 1), (signal.SIGTERM, 15), (signal.SIGHUP, 15)):
        os.kill(os.getpid(), number)
        assert (stop.pending(), ended) == (pending, [])
    os.kill(os.getpid(), signal.SIGINT)
    assert ended == [130]
    capfd.readouterr()


@pytest.mark.usefixtures("usual_signals")
@pytest.mark.skipif(os.name != "posix", reason="there are no such signals")
@pytest.mark.parametrize("name", ["SIGUSR1", "SIGXCPU"])
def test_warnings_of_a_batch_system_wait_for_the_state(
    name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ended: list[int] = []
    monkeypatch.setattr("finetuning.commands.stop_signal.os._exit", ended.append)
    number, stop = getattr(signal, name), StopSignal()
    stop.patient = True
    for _ in range(3):
        os.kill(os.getpid(), number)
        assert (stop.pending(), ended) == (number, [])
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


@pytest.mark.parametrize(
    ("words", "right"),
    [
        (["--dataset", "설문", "결과.csv"], "--dataset '설문 결과.csv'"),
        (["train", "--dataset", "설문", "결과.csv", "--epochs", "3"], "--dataset '설문 결과.csv'"),
        (["train", "--dataset=내", "설문", "결과.csv"], "--dataset '내 설문 결과.csv'"),
        (["predict", "--input", "내", "글.csv"], "--input '내 글.csv'"),
        (["--set", "training.epochs", "3"], "--set training.epochs=3"),
        (["train", "--set", "data.label_column=내", "라벨"], "--set 'data.label_column=내 라벨'"),
        (["pyproject.toml"], "--dataset pyproject.toml"),
        (["--epochs", "3", "evaluat"], "혹시 evaluate입니까?"),
        (["train", "--output_dir", "out", "evaluate"], "finetuning_app.py evaluate"),
    ],
)
def test_words_that_the_shell_split_are_shown_as_they_should_be(
    words: list[str], right: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(SettingsError) as error:
        build_parser().parse_args(words)
    assert right in error.value.remedy


@pytest.mark.parametrize("flag", ["--output", "--output="])
def test_a_home_folder_is_found_in_every_path(flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    words = ["--output=~/x"] if flag.endswith("=") else ["--output", "~/x"]
    arguments = build_parser().parse_args(["export", *words])
    assert arguments.output == tmp_path / "x"
    flags = ["--model_name", "~/base", "--dataset", "~/data.csv", "--cache_dir", "~/hub"]
    settings = read_settings(build_parser().parse_args(["train", *flags, "--set", "data.dataset_cache_dir='~/cache'"]))
    home = str(tmp_path)
    assert [
        settings.model.name,
        settings.data.dataset_name,
        settings.model.cache_dir,
        settings.data.dataset_cache_dir,
    ] == [f"{home}{os.sep}{name}" for name in ("base", "data.csv", "hub", "cache")]


@pytest.mark.parametrize("flag", ["--model_name", "--dataset", "--output_dir", "--cache_dir", "--config"])
@pytest.mark.parametrize(
    ("name", "said"), [("~nouser-of-this-name/x", "홈 폴더를 찾을 수 없습니다"), ("글" * 90, "255바이트")]
)
def test_a_path_that_cannot_be_is_refused(flag: str, name: str, said: str) -> None:
    with pytest.raises(SettingsError) as error:
        read_settings(build_parser().parse_args(["train", flag, name]))
    assert said in str(error.value)


def test_a_saved_model_is_not_chosen_by_the_name_of_its_base() -> None:
    for command in ("evaluate", "predict", "chat", "export"):
        with pytest.raises(SettingsError, match=r"model\.name을 읽지 않습니다") as error:
            build_parser().parse_args([command, "--set", "model.name=x"])
        assert "--model_name" in error.value.remedy
    build_parser().parse_args(["train", "--set", "model.name=x"])


@pytest.mark.parametrize(
    "named", [{"test_file": "b.csv"}, {"train_file": "a.csv"}, {"mix": [{"dataset_name": "b.csv"}]}], ids=str
)
def test_data_are_named_by_any_setting_that_names_data(named: dict[str, Any], tmp_path: Path) -> None:
    check_data_named(tmp_path, "a.csv", DataSettings.model_validate(named), [])
    with pytest.raises(SettingsError, match="--dataset"):
        check_data_named(tmp_path, "a.csv", DataSettings(), [])


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ({"dataset_name": "a.csv"}, "a.csv"),
        ({"train_file": "a.csv", "test_file": "b.csv"}, "a.csv"),
        ({"mix": [{"dataset_name": "a.csv", "weight": 2}, {"dataset_name": "b.csv"}]}, "a.csv"),
    ],
)
def test_a_saved_model_tells_what_it_was_trained_on(data: dict[str, Any], shown: str, tmp_path: Path) -> None:
    ConfigManager.save(Settings.model_validate({"data": data}), tmp_path / "settings.yaml")
    assert ConfigManager.saved_dataset(tmp_path) == shown
