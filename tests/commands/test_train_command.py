"""The train command around the loop: folders with other files, and the files kept beside a model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from config_manager import ConfigManager
from exceptions import SettingsError
from finetuning.commands.output_folder import check_not_foreign, prepare_output
from finetuning.commands.run_folder import RunFolder
from finetuning.commands.train import _keep_model
from finetuning.config.schema import Settings
from finetuning.files import write_json


@pytest.mark.parametrize("name", ["README.md", "config.json"])
def test_a_folder_with_files_of_anothers_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine", encoding="utf-8")
    with pytest.raises(SettingsError, match=name):
        check_not_foreign(tmp_path)


@pytest.mark.parametrize("left", ["settings.yaml", "checkpoints/step-00000003/manifest.json", None])
def test_a_folder_of_our_own_or_an_empty_one_may_be_used(tmp_path: Path, left: str | None) -> None:
    (tmp_path / ".gitkeep").touch()
    if left is not None:
        (tmp_path / left).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / left).touch()
        (tmp_path / "config.json").touch()
    check_not_foreign(tmp_path)
    assert (tmp_path / ".gitkeep").exists()


def test_a_run_that_was_killed_before_its_first_checkpoint_may_begin_again(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").touch()
    (tmp_path / "checkpoints" / ".step-00000004.partial-1").mkdir(parents=True)
    check_not_foreign(tmp_path)
    prepare_output(RunFolder(tmp_path, "model"), starts_anew=True)
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "checkpoints", tmp_path / "run.json"]


def test_a_new_run_clears_nothing_but_records_of_one_that_never_saved(tmp_path: Path) -> None:
    for name in ("step-00000003", ".step-00000004.partial-1", "mine", "step-best", ".step-notes"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    (tmp_path / "metrics.jsonl").touch()
    prepare_output(RunFolder(tmp_path, "model"), starts_anew=True)
    left = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert left == {"step-00000003", "mine", "step-best", ".step-notes"}
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.parametrize("name", ["settings.yaml", "metrics.jsonl", "vocabulary.json", "tokenizer.json"])
def test_a_file_of_the_users_with_a_name_of_ours_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine", encoding="utf-8")
    with pytest.raises(SettingsError, match=name):
        check_not_foreign(tmp_path)


def test_saving_a_model_removes_the_reports_of_an_earlier_one(tmp_path: Path) -> None:
    for name in ("README.md", "summary.json", "metrics-mine.json", "config.json"):
        (tmp_path / name).write_text("old", encoding="utf-8")
    write_json(tmp_path / "metrics-test.json", {"split": "test", "rows": 20})

    def save(model: Any, tokenizer: Any, output_dir: Path, weights: None) -> None:
        (output_dir / "config.json").write_text(f"{model}", encoding="utf-8")

    settings = Settings.model_validate({"data": {"max_length": 33}})
    session: Any = SimpleNamespace(models=SimpleNamespace(save=save), output_dir=tmp_path, settings=settings)
    _keep_model(session, "new", None, None)  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "metrics-mine.json", "settings.yaml"]
    assert ConfigManager.load(tmp_path / "settings.yaml", {}) == settings
