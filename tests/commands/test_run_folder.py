"""Which folder a run has: a finished run is never written over, and every command means the newest run."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from exceptions import FinetuningError, ModelError, ResourceError, SettingsError
from finetuning.commands.command_line import build_parser, resume_command
from finetuning.commands.output_folder import check_writable
from finetuning.commands.run_folder import RunFolder, check_not_its_own_base, folder_to_train, newest_run
from finetuning.reporting.predictions import check_output
from finetuning_app import read_settings
from tests.support.cli import Cli


def make_run(folder: Path, number: int = 1, name: str | None = None, finished: bool = True, steps: int = 1) -> Path:
    """A folder as a run leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    RunFolder(folder, name or folder.name, number).record()
    for step in range(1, steps + 1):
        checkpoint = folder / "checkpoints" / f"step-{step:08d}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "manifest.json").touch()
    if finished:
        for file in ("summary.json", "config.json", "settings.yaml"):
            (folder / file).touch()
    return folder


def chosen(output_dir: Path, is_given: bool = False, **flags: Any) -> RunFolder:
    arguments = Namespace(**{"resume": False, "checkpoint_path": None, "words": (), **flags})
    return folder_to_train(output_dir, arguments, is_given)


def test_a_finished_run_gets_a_numbered_one_beside_it(tmp_path: Path) -> None:
    first = tmp_path / "model"
    assert chosen(first) == RunFolder(first, "model")
    make_run(first)
    second = chosen(first)
    assert (second.path, second.number, second.earlier) == (tmp_path / "model-2", 2, first)
    assert second.note is not None and str(first) in second.note and str(second.path) in second.note
    make_run(second.path, 2, "model")
    assert chosen(first).path == tmp_path / "model-3"
    assert newest_run(first).path == chosen(first, resume=True).path == second.path
    assert newest_run(second.path).path == second.path


def test_a_run_that_is_not_finished_is_the_one_to_go_on_with(tmp_path: Path) -> None:
    first = make_run(tmp_path / "model")
    second = make_run(tmp_path / "model-2", 2, "model", finished=False)
    assert chosen(first).path == chosen(first, resume=True).path == second
    killed = make_run(tmp_path / "other", finished=False, steps=0)
    assert chosen(killed).path == killed


def test_folders_that_only_look_numbered_are_passed_over(tmp_path: Path) -> None:
    first = make_run(tmp_path / "model")
    make_run(tmp_path / "model-2")  # a run of its own, with this very output_dir
    make_run(tmp_path / "model-20251126", 1, "model")
    (tmp_path / "model-3").mkdir()
    (tmp_path / "model-3" / "notes.txt").touch()
    assert newest_run(first).path == first
    assert chosen(first).path == tmp_path / "model-4"


def test_a_model_without_a_summary_is_not_written_over(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "settings.yaml"):
        (folder / name).touch()
    assert chosen(folder).path == tmp_path / "model-2"


def test_the_current_folder_has_a_name_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make_run(tmp_path / "here"))
    assert chosen(Path()).path == tmp_path / "here-2"


@pytest.mark.parametrize("how", ["folder", "link", "pointer", "run"])
def test_a_checkpoint_names_its_run(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "model")
    run = make_run(tmp_path / "model-2", 2, "model")
    path = {"folder": run / "checkpoints" / "step-00000001", "run": run}.get(how, tmp_path / "checkpoint-latest")
    if how == "link":
        path.symlink_to("model-2/checkpoints/step-00000001")
    elif how == "pointer":
        path.write_text("model-2/checkpoints/step-00000001\n", encoding="utf-8")
    found = chosen(Path("elsewhere"), checkpoint_path=path, resume=True)
    assert found.path == Path("model-2")
    assert found.note is not None and "model-2" in found.note
    assert found.checkpoint == (None if how == "run" else run / "checkpoints" / "step-00000001")
    assert chosen(Path("model"), is_given=True, checkpoint_path=path).path.resolve() == run
    with pytest.raises(SettingsError, match="model-2") as error:
        chosen(Path("elsewhere"), is_given=True, checkpoint_path=path)
    assert "elsewhere" in error.value.what


def test_a_copy_of_a_checkpoint_goes_on_in_an_empty_folder_alone(tmp_path: Path) -> None:
    copy = tmp_path / "backup" / "step-00000001"
    copy.mkdir(parents=True)
    with pytest.raises(SettingsError, match="어느 학습인지"):
        chosen(tmp_path / "model", checkpoint_path=copy)
    assert chosen(tmp_path / "model", is_given=True, checkpoint_path=copy).path == tmp_path / "model"
    make_run(tmp_path / "model")
    with pytest.raises(SettingsError, match="이미 학습이 있습니다"):
        chosen(tmp_path / "model", is_given=True, checkpoint_path=copy)
    with pytest.raises(ModelError, match="체크포인트가 없습니다"):
        chosen(tmp_path / "model", checkpoint_path=tmp_path / "nowhere")


def test_saved_settings_and_models_are_those_of_the_newest_run(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"model:\n  output_dir: {tmp_path / 'model'}\n", encoding="utf-8")
    make_run(tmp_path / "model")
    second = make_run(tmp_path / "model-2", 2, "model")
    for words in (["--config", str(config)], ["--output_dir", str(tmp_path / "model")]):
        for command in ("evaluate", "predict", "chat", "export"):
            assert read_settings(build_parser().parse_args([command, *words])).model.output_dir == str(second)
        third = read_settings(build_parser().parse_args(["train", *words])).model.output_dir
        assert third == str(tmp_path / "model-3")


def test_the_folder_of_the_base_is_not_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    (tmp_path / "link").symlink_to("base")
    for output_dir in (Path("base"), tmp_path / "base", Path("link")):
        with pytest.raises(FinetuningError, match="같은 폴더") as error:
            check_not_its_own_base("./base/", output_dir)
        assert f"--output_dir {output_dir}-tuned" in error.value.remedy
    check_not_its_own_base("base", tmp_path / "new")
    check_not_its_own_base("klue/bert-base", Path("klue/bert-base"))


def test_a_run_from_a_named_checkpoint_goes_on_in_its_own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["finetuning_app.py"])
    monkeypatch.setattr("shutil.which", lambda _: sys.executable)
    words = ["--epochs", "3", "--resume", "--checkpoint_path", "old/checkpoints/step-00000001"]
    told = resume_command(words, Path("old"))
    assert told == "python finetuning_app.py --epochs 3 --resume --checkpoint_path old"
    assert resume_command(["--epochs", "3"], Path("old")) == "python finetuning_app.py --epochs 3 --resume"


def test_a_file_in_place_of_a_checkpoint_is_named(cli: Cli, reviews: Path, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"a": "' + "b" * 5000 + '"}', encoding="utf-8")
    run = cli("train", "--resume", "--checkpoint_path", file, "--dataset", reviews)
    assert run.code == 4 and "폴더가 아니라 파일입니다" in run.err and "Traceback" not in run.err


@pytest.mark.skipif(os.name != "posix", reason="links of POSIX")
def test_an_output_dir_that_is_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("moved")
    with pytest.raises(ResourceError, match="가리키는 곳이 없는 링크") as error:
        check_writable(tmp_path / "out")
    assert "moved" in error.value.where


def test_a_group_that_is_started_again_goes_on_although_the_checkpoint_that_it_was_given_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output_dir = make_run(tmp_path / "model", finished=False)
    dropped = output_dir / "checkpoints" / "step-00000004"
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    with pytest.raises(ModelError):  # at its first start the path is mistyped
        chosen(output_dir, checkpoint_path=dropped)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    run = chosen(output_dir, checkpoint_path=dropped)
    assert (run.path.resolve(), run.checkpoint) == (output_dir.resolve(), None)


@pytest.mark.parametrize("below", ["", "model"])
def test_a_file_in_the_place_of_the_output_folder_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="폴더가 있어야 할 곳에 파일이 있습니다") as error:
        check_writable(tmp_path / "file" / below)
    assert str(tmp_path / "file") in error.value.what and "권한" not in error.value.remedy


@pytest.mark.parametrize(
    ("output", "said"),
    [("folder", "파일이 아니라 폴더"), ("file/a.csv", "폴더가 아니라 파일"), ("no/a.csv", "폴더가 없습니다")],
)
def test_a_file_of_predictions_that_cannot_be_written_is_told_why(tmp_path: Path, output: str, said: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=said):
        check_output(tmp_path / output, None)
