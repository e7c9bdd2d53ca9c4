"""Windows, simulated: no hang-ups, no links, files that are open, a console of its own, names that are not allowed."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest
import torch

from exceptions import DataError, ResourceError, StopRequested
from finetuning.checkpoints.names import points_to_a_checkpoint
from finetuning.checkpoints.store import CheckpointStore
from finetuning.commands.console import prepare_output, tell_at_once
from finetuning.commands.export import check_export_folder
from finetuning.commands.stop_signal import StopSignal
from finetuning.data.folders import files_by_split
from finetuning.data.formats.registry import open_source
from finetuning.files import disk_reason, move, seen_from, typed, user_path, write_json
from finetuning.reporting.predictions import write_predictions
from finetuning.types import Checkpoint, Progress
from tests.support.runs import StopAfter, losses, run_train
from tests.support.windows import OpenFiles, simulate_windows, windows_error

Flags = Callable[[str], list[str]]
TASK = "text-classification"


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    simulate_windows(monkeypatch)


def checkpoint(step: int) -> Checkpoint:
    weights = {"weight": torch.full((8,), float(step))}
    return Checkpoint(weights, weights, {}, Progress(0, step, step), {})


# --- a whole run ---


def test_a_run_is_stopped_resumed_and_used(flags_for: Flags, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = [*flags_for(TASK), "--set", "training.save_steps=2"]
    whole, halved = tmp_path / "whole" / "model", tmp_path / "halved" / "model"
    run_train([*flags, "--output_dir", str(whole)], StopAfter())
    simulate_windows(monkeypatch)
    with pytest.raises(StopRequested):
        run_train([*flags, "--output_dir", str(halved)], StopAfter(looks=5))
    pointer = halved.parent / "checkpoint-latest"
    assert pointer.is_file() and not pointer.is_symlink()
    run_train([*flags, "--resume", "--checkpoint_path", str(pointer)], StopAfter())
    assert losses(halved) == losses(whole)
    assert (halved / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert not [path for path in halved.rglob("*") if "partial" in path.name or "replaced" in path.name]


# --- checkpoint-latest ---


def test_the_pointer_is_a_file_that_every_system_reads(windows: None, tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "run", keep=1)
    for step in (1, 2):
        store.save(checkpoint(step))
    assert store.latest.read_text(encoding="utf-8") == "run/checkpoints/step-00000002\n"
    assert store.load(store.latest).progress.step == 2
    assert points_to_a_checkpoint(store.latest)


def test_paths_on_two_drives_are_whole_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As `os.path.relpath` does it there."""

    def relpath(path: object, start: object) -> str:
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    assert seen_from(tmp_path, tmp_path.parent / "model") == "../model"
    monkeypatch.setattr(os.path, "relpath", relpath)
    assert seen_from(tmp_path, tmp_path / "model") == (tmp_path / "model").as_posix()
    for name in ("merged", "model"):
        (tmp_path / name).mkdir()
    (tmp_path / "merged" / "config.json").write_text("{}")
    write_json(tmp_path / "merged" / "export.json", {"model": (tmp_path / "model").resolve().as_posix()})
    check_export_folder(tmp_path / "merged", tmp_path / "model")


# --- files that another program has open ---


def test_a_file_that_is_open_for_a_moment_is_replaced(
    windows: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answers = iter([True, True, False, False])
    opened = OpenFiles(monkeypatch, lambda path: path.name == "summary.json" and next(answers))
    write_json(tmp_path / "summary.json", {"accuracy": 1.0})
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8")) == {"accuracy": 1.0}
    assert len(opened.refused) == 2


def test_a_file_that_stays_open_is_named_and_left_whole(
    windows: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "summary.json").write_text("{}", encoding="utf-8")
    OpenFiles(monkeypatch, lambda path: path.name == "summary.json")
    with pytest.raises(ResourceError, match="다른 프로그램이 열어 두었습니다") as error:
        write_json(tmp_path / "summary.json", {"accuracy": 1.0})
    assert "summary.json" in error.value.where
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_other_systems_do_not_wait(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = OpenFiles(monkeypatch, lambda path: path.name == "target")
    with pytest.raises(PermissionError):
        move(tmp_path / "source", tmp_path / "target")
    assert len(asked.refused) == 1


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_predictions_are_kept_beside_a_file_that_excel_has_open(
    windows: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"result{suffix}"
    path.write_text("old", encoding="utf-8")
    (tmp_path / f"result-2{suffix}").write_text("mine", encoding="utf-8")
    OpenFiles(monkeypatch, lambda asked: asked == path)
    with pytest.raises(ResourceError, match="열어 두었습니다") as error:
        write_predictions(path, [{"text": "좋다", "label": "긍정"}])
    kept = tmp_path / f"result-3{suffix}"
    assert str(kept) in error.value.remedy and "긍정" in kept.read_text(encoding="utf-8")
    assert path.read_text(encoding="utf-8") == "old"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [f"result-{n}{suffix}" for n in (2, 3)] + [path.name]


def test_a_table_that_excel_has_open_is_told(windows: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path, real = tmp_path / "train.csv", io.open
    path.write_text("text,label\n좋다,1\n", encoding="utf-8")

    def open_unless_excel_has_it(file: Any, *args: Any, **kwargs: Any) -> Any:
        if str(file) == str(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
        return real(file, *args, **kwargs)

    monkeypatch.setattr(io, "open", open_unless_excel_has_it)
    with pytest.raises(DataError, match="권한") as error:
        open_source(path, None)
    assert "엑셀" in error.value.remedy


def test_the_file_that_excel_puts_beside_an_open_one_is_no_data(tmp_path: Path) -> None:
    for name in ("train.xlsx", "~$train.xlsx", "test.xlsx"):
        (tmp_path / name).touch()
    found = files_by_split(tmp_path)
    assert {split: [path.name for path in files] for split, files in found.items()} == {
        "train": ["train.xlsx"], "test": ["test.xlsx"],
    }  # fmt: skip


def test_a_model_that_is_open_does_not_end_the_run(
    flags_for: Flags, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The model of the first epoch is open while that of the second is saved; then it is closed."""
    output_dir, times = tmp_path / "model", iter([False, *[True] * 6])
    simulate_windows(monkeypatch)
    OpenFiles(monkeypatch, lambda path: path == output_dir / "model.safetensors" and next(times, False))
    monkeypatch.setattr("finetuning.training.state.TrainingState.is_better", lambda *_: True)
    run_train([*flags_for(TASK), "--epochs", "3", "--output_dir", str(output_dir)], StopAfter())
    assert "모델을 저장하지 못했습니다: 다른 프로그램이 열어 두었습니다." in caplog.text
    assert json.loads((output_dir / "best.json").read_text())["step"] == 15
    assert (output_dir / "summary.json").is_file()


def test_a_card_that_is_open_does_not_end_the_run(
    flags_for: Flags, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output_dir = tmp_path / "model"
    output_dir.mkdir()
    simulate_windows(monkeypatch)
    refused = OpenFiles(monkeypatch, lambda path: path == output_dir / "README.md" and path.exists()).refused
    flags = [*flags_for(TASK), "--output_dir", str(output_dir)]
    run_train([*flags, "--epochs", "1"], StopAfter())
    monkeypatch.setattr("finetuning.training.state.TrainingState.is_better", lambda *_: True)
    with pytest.raises(ResourceError, match="열어 두었습니다"):  # at the end, after the model is saved
        run_train([*flags, "--epochs", "2", "--resume"], StopAfter())
    assert refused
    assert json.loads((output_dir / "best.json").read_text())["step"] == 10


def test_an_open_checkpoint_is_dropped_whole_at_a_later_save(
    windows: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = CheckpointStore(tmp_path / "run", keep=1)
    first, is_open = store.save(checkpoint(1)), True
    OpenFiles(monkeypatch, lambda path: is_open and first in (path, path.parent))
    store.save(checkpoint(2))
    assert store.load(first).progress.step == 1
    is_open = False
    store.save(checkpoint(3))
    assert [path.name for path in store.folder.iterdir()] == ["step-00000003"]


def test_a_checkpoint_that_cannot_be_published_leaves_the_others(
    windows: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = CheckpointStore(tmp_path / "run", keep=3)
    for step in (1, 2, 3):
        store.save(checkpoint(step))
    OpenFiles(monkeypatch, lambda path: ".step-00000002.partial" in str(path) and path.is_dir())
    with pytest.raises(ResourceError):
        store.save(checkpoint(2))
    assert [store.load(path).progress.step for path in store.folders()] == [1, 2, 3]


# --- names ---


@pytest.mark.parametrize("text", ["models/con", "NUL.txt", "C:\\x\\aux", "com1", "lpt9.csv", "x\\CONIN$", "nul .a"])
def test_names_of_devices_are_refused(windows: None, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    with pytest.raises(ValueError, match="장치"):
        user_path(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [("models/run:1", "':' 문자"), ("a?b", "'\\?' 문자"), ("models\\run.", "마침표"), ("run \\model", "빈칸")],
)
def test_names_that_become_others_are_refused(windows: None, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        user_path(text)


@pytest.mark.parametrize(
    "text",
    [
        "C:\\models\\run",
        "C:run",
        "\\\\server\\share\\run",
        "\\\\?\\C:\\run",
        "..\\run",
        ".",
        "console",
        "klue/bert-base",
    ],
)
def test_usual_names_are_taken(windows: None, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("finetuning.files.Path", PureWindowsPath)
    assert user_path(text) == text


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("C:\\models\\run", "C:\\models\\run"),
        ("내 설문 결과.csv", '"내 설문 결과.csv"'),
        ("C:\\my data\\", '"C:\\my data\\\\"'),
        ("a&b", '"a&b"'),
        ("data.label_column=내 라벨", '"data.label_column=내 라벨"'),
    ],
)
def test_commands_are_shown_as_the_shells_of_windows_take_them(windows: None, word: str, shown: str) -> None:
    assert typed("--resume", word) == f"--resume {shown}"


def test_a_path_that_is_too_long_is_named(windows: None) -> None:
    path = "C:\\" + "\\".join(["가" * 60] * 5)
    for error in (windows_error(errno.ENOENT, 3, path), windows_error(errno.ENOENT, 206, "short")):
        error.filename = path
        assert "260자" in str(disk_reason(error))
    missing = windows_error(errno.ENOENT, 3, "short")
    missing.filename = "short"
    assert disk_reason(missing) == "폴더가 없습니다."


# --- the console and signals ---


class Console(io.RawIOBase):
    """Windows' console: it shows UTF-8 that is written through this object; its descriptor would take CP949."""

    def __init__(self) -> None:
        self.shown = ""

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise AssertionError("the descriptor is not for Unicode")

    def write(self, data: Any) -> int:
        self.shown += bytes(data).decode()
        return len(data)


def sit_at(shown: Console, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make standard error what Python makes it at such a console."""
    stream = io.TextIOWrapper(io.BufferedWriter(shown), encoding=encoding, line_buffering=True)
    for name in ("stderr", "__stderr__"):
        monkeypatch.setattr(sys, name, stream)
    prepare_output()


def test_a_console_gets_unicode_through_its_own_object(windows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console()
    sit_at(console, "utf-8", monkeypatch)
    print("⟦똠방각하⟧ 😀", file=sys.stderr)
    tell_at_once("멈춥니다\n")
    assert console.shown == "⟦똠방각하⟧ 😀\n멈춥니다\n"


class OldConsole(Console):
    """A console of the code page 949."""

    def write(self, data: Any) -> int:
        self.shown += bytes(data).decode("cp949")
        return len(data)


def test_characters_that_a_console_lacks_do_not_end_a_run(windows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    console = OldConsole()
    sit_at(console, "cp949", monkeypatch)
    print("⟦똠방각하⟧ 😀", file=sys.stderr)
    tell_at_once("중단 😀\n")
    assert console.shown == "?똠방각하? ?\n중단 ?\n"


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no signal stands for Ctrl+Break")
def test_control_and_break_stops_as_control_and_c(monkeypatch: pytest.MonkeyPatch) -> None:
    stands_for = signal.SIGUSR1
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, stands_for)}
    simulate_windows(monkeypatch)
    monkeypatch.setattr(signal, "SIGBREAK", stands_for, raising=False)
    try:
        stop = StopSignal()
        with pytest.raises(StopRequested) as stopped:
            signal.raise_signal(stands_for)
        assert stopped.value.exit_code == 130
        stop.patient = True
        signal.raise_signal(stands_for)
        assert stop.pending() == signal.SIGINT
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
