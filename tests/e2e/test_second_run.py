"""A second run with the same output_dir destroys nothing, and every command then means the second run."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from config_manager import ConfigManager
from tests.support.cli import Cli, arguments_for, data_flags


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def first(cli: Cli, tiny_model: Path, reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output_dir of a finished run."""
    output_dir = tmp_path_factory.mktemp("runs") / "model"
    run = cli(*arguments_for(tiny_model, reviews, output_dir, "--epochs", "1"))
    assert run.code == 0, run.err
    return output_dir


def test_to_resume_a_finished_run_changes_nothing(cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path) -> None:
    flags = arguments_for(tiny_model, reviews, tmp_path / "model", "--epochs", "1", "--set", "data.train_rows=40")
    assert cli(*flags).code == 0
    before = contents(tmp_path / "model")
    run = cli(*flags, "--resume")
    assert run.code == 0, run.err
    assert "이미 끝난 학습" in run.err
    assert contents(tmp_path / "model") == before


def test_a_finished_run_is_kept_and_the_newest_one_is_used(
    cli: Cli, first: Path, tiny_model: Path, reviews: Path
) -> None:
    second, third, before = first.with_name("model-2"), first.with_name("model-3"), contents(first)
    run = cli(*arguments_for(tiny_model, reviews, first, "--epochs", "1", "--seed", "7"))
    assert run.code == 0, run.err
    for said in ("새 폴더에 학습합니다", "이번 학습은"):
        line = next(line for line in run.err.splitlines() if said in line)
        assert str(first) in line and str(second) in line
    assert contents(first) == before
    assert ConfigManager.load(second / "settings.yaml", {}).model.output_dir == str(second)
    evaluated = cli("evaluate", "--output_dir", first, *data_flags(first))
    assert evaluated.code == 0, evaluated.err
    assert str(second) in evaluated.err
    assert (second / "metrics-test.json").is_file()
    earlier = cli("evaluate", "--model_name", first, *data_flags(first))
    assert earlier.code == 0, earlier.err
    assert str(second) not in earlier.err

    # the command on the user's card: the run in which the checkpoint lies, whatever output_dir the settings name
    latest = first.with_name("checkpoint-latest")
    settings = ConfigManager.load(second / "settings.yaml", {})
    moved = settings.model_copy(update={"model": settings.model.model_copy(update={"output_dir": str(third)})})
    ConfigManager.save(moved, first.parent / "mine.yaml")
    resumed = cli("--config", first.parent / "mine.yaml", "--resume", "--checkpoint_path", latest, "--epochs", "2")
    assert resumed.code == 0, resumed.err
    assert any(str(second) in line for line in resumed.err.splitlines()[:2])
    assert not third.exists()
    assert contents(first) | {"metrics-test.json": ""} == before | {"metrics-test.json": ""}
    refused = cli(*arguments_for(tiny_model, reviews, third, "--resume", "--checkpoint_path", latest))
    assert refused.code == 2
    assert str(second) in refused.err and str(third) in refused.err

    # settings that were saved are run again beside their run
    kept = contents(second)
    again = cli("--config", second / "settings.yaml", "--epochs", "1")
    assert again.code == 0, again.err
    assert contents(second) == kept
    assert first.with_name("model-2-2").is_dir()


@pytest.mark.parametrize("method", ["none", "lora"])
def test_a_base_that_is_named_as_output_dir_is_kept(
    cli: Cli, first: Path, tiny_model: Path, reviews: Path, method: str
) -> None:
    adapter = ["--epochs", "1", "--set", f"model.adapter.method={method}"]
    before = contents(tiny_model)
    refused = cli(*arguments_for(tiny_model, reviews, tiny_model, *adapter))
    assert refused.code == 2
    assert f"--output_dir {tiny_model}-tuned" in refused.err
    assert contents(tiny_model) == before
    ours = contents(first)
    run = cli(*arguments_for(first, reviews, first, *adapter))
    assert run.code == 0, run.err
    assert {name: mark for name, mark in contents(first).items() if "metrics-test" not in name} == {
        name: mark for name, mark in ours.items() if "metrics-test" not in name
    }
