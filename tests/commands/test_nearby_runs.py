"""A folder without a checkpoint: the error names the runs nearby and the command that goes on with each."""

from __future__ import annotations

import shlex
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from exceptions import ModelError, SettingsError
from finetuning.checkpoints.store import CheckpointStore
from finetuning.commands.nearby_runs import nothing_to_resume, runs_near
from finetuning.commands.output_folder import checkpoint_to_resume
from finetuning.commands.run_folder import RunFolder, folder_to_train
from tests.support.cli import Cli, arguments_for


def make_run(folder: Path, step: int = 1, ended: bool = False) -> Path:
    checkpoint = folder / "checkpoints" / f"step-{step:08d}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").touch()
    if ended:
        (folder / "summary.json").touch()
    return folder


def test_runs_inside_come_before_runs_beside_and_stopped_ones_before_ended_ones(tmp_path: Path) -> None:
    ended, stopped = make_run(tmp_path / "runs" / "a", ended=True), make_run(tmp_path / "runs" / "b")
    deeper = make_run(tmp_path / "runs" / "korean" / "c")
    beside = make_run(tmp_path / "runs-2")
    make_run(tmp_path / "runs" / "far" / "too" / "deep")
    assert runs_near(tmp_path / "runs") == [stopped, deeper, ended, beside]
    assert runs_near(tmp_path / "runs" / "new") == [stopped, ended]
    assert runs_near(tmp_path / "nowhere" / "at all") == []


def test_the_run_of_the_nearest_name_is_first(tmp_path: Path) -> None:
    for name in ("a-model", "result-2", "zoo"):
        make_run(tmp_path / name)
    assert runs_near(tmp_path / "result")[0] == tmp_path / "result-2"


@pytest.mark.parametrize("flags", [["--output_dir", "x"], ["--output_dir=x"], ["--checkpoint_path", "x", "--resume"],
                                   ["--set", "model.output_dir=x"]])  # fmt: skip
def test_the_command_has_the_run_in_place_of_the_folder(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["finetuning_app.py"])
    monkeypatch.setattr("shutil.which", lambda _: sys.executable)
    make_run(tmp_path / "my run", step=12)
    error = nothing_to_resume(Path("x"), "x", ["--epochs", "3", *flags, "--set", "data.batch_size=4"])
    expected = (
        "python finetuning_app.py --epochs 3 --set data.batch_size=4 --resume --checkpoint_path 'my run' "
        "(스텝 12까지, 멈춘 학습)"
    )
    assert error.remedy.split("\n  - ")[1:] == [expected]


@pytest.mark.parametrize("given", ["runs", "runs/nowhere", "runs/a/checkpoints", "runs/a"])
def test_a_checkpoint_path_is_a_run_its_checkpoints_or_is_told_the_runs(given: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "a")
    arguments = Namespace(resume=True, checkpoint_path=tmp_path / given, words=())
    if given.startswith("runs/a"):
        assert folder_to_train(tmp_path / "default", arguments, False).path == run
    else:
        with pytest.raises(ModelError, match="체크포인트가 없습니다") as error:
            folder_to_train(tmp_path / "default", arguments, False)
        assert str(run) in error.value.remedy


def test_the_command_that_is_shown_goes_on(cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "result-2"
    flags = arguments_for(tiny_model, reviews, run, "--epochs", 1)
    assert cli(*flags).code == 0
    for wrong in (tmp_path / "runs", tmp_path / "runs" / "result"):
        told = cli(*arguments_for(tiny_model, reviews, run, "--epochs", 2), "--output_dir", wrong, "--resume")
        assert told.code == 4, told.err
        assert not (tmp_path / "runs" / "result").exists()
    shown = next(line for line in told.err.splitlines() if line.startswith("  - ") and "--resume" in line)
    words = shlex.split(shown.removeprefix("  - ").partition(" (")[0])[2:]
    resumed = cli(*words)
    assert resumed.code == 0, resumed.err
    assert "이어서 학습합니다" in resumed.err


def test_an_unfinished_run_is_not_written_over_and_the_command_that_resumes_it_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["finetuning_app.py"])
    monkeypatch.setattr("shutil.which", lambda _: sys.executable)
    run = make_run(tmp_path / "a")
    with pytest.raises(SettingsError, match="끝나지 않은 학습") as error:
        store = CheckpointStore(run, 2)
        checkpoint_to_resume(store, RunFolder(run, "a"), False, ["--epochs", "3"], store.newest)
    assert error.value.remedy.endswith("python finetuning_app.py --epochs 3 --resume")
