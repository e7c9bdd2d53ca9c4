"""The program's config.yaml under a settings file that the user names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from config_manager import ConfigManager
from exceptions import SettingsError
from finetuning.config.layers import note_below, values_below
from finetuning.config.schema import Settings
from tests.support.paths import ROOT

PROGRAMS = """
model: {name: own/model, adapter: {method: lora}}
data: {train_file: other.csv, label_map: {나쁨: 부정}, text_column: 본문, batch_size: 8, max_length: 1024}
training: {epochs: 7, warmup_steps: 100, learning_rate: 2e-5}
expectation: {metric: accuracy, score: 0.9, band: 0.1}
"""


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def layered(folder: Path, users: str, programs: str = PROGRAMS) -> tuple[Settings, list[str]]:
    base, path = written(folder, "config.yaml", programs), written(folder, "own.yaml", users)
    below = values_below(base, path)
    settings = ConfigManager.load(path, below)
    return settings, list(note_below(base, below, settings))


def test_keys_that_the_file_leaves_out_have_the_values_of_config_yaml(tmp_path: Path) -> None:
    settings, notes = layered(tmp_path, "training: {epochs: 2}\nmodel: {adapter: {r: 4}}")
    assert (settings.training.epochs, settings.training.warmup_steps) == (2, 100)
    assert (settings.model.adapter.method, settings.model.adapter.r) == ("lora", 4)
    assert (settings.data.train_file, settings.data.text_column) == ("other.csv", "본문")
    [note] = notes
    assert "config.yaml" in note and "training.warmup_steps=100" in note and "data.batch_size=8" in note
    assert "training.epochs" not in note and "learning_rate" not in note and "max_length" not in note


@pytest.mark.parametrize(
    "source", ["dataset_name: mine.csv", "train_file: mine.csv", "mix: [{dataset_name: mine.csv}]"]
)
def test_a_file_that_names_its_data_is_not_given_columns_of_another_dataset(tmp_path: Path, source: str) -> None:
    settings, _ = layered(tmp_path, f"data:\n  {source}")
    assert settings.data.names() == ("mine.csv",)
    assert (settings.data.text_column, settings.data.label_map, settings.expectation.metric) == ("text", {}, None)
    assert (settings.data.batch_size, settings.training.epochs) == (8, 7)


def test_a_setting_that_wins_over_one_of_the_file_is_left_out(tmp_path: Path) -> None:
    settings, _ = layered(tmp_path, "training: {warmup_ratio: 0.1}")
    assert (settings.training.warmup_ratio, settings.training.warmup_steps) == (0.1, 0)


def test_an_untouched_or_missing_config_yaml_changes_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, "own.yaml", "training: {epochs: 2}")
    untouched = values_below(ROOT / "config.yaml", path)
    settings = ConfigManager.load(path, untouched)
    assert settings == ConfigManager.load(path, {})
    assert list(note_below(ROOT / "config.yaml", untouched, settings)) == []
    assert values_below(tmp_path / "missing.yaml", path) == {}
    assert values_below(written(tmp_path, "config.yaml", PROGRAMS), None) == {}


def test_a_wrong_value_names_the_file_that_holds_it(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as error:
        layered(tmp_path, "model: {name: a}", "training: {epochs: many}")
    assert "config.yaml" in str(error.value) and "training.epochs" in str(error.value)


def test_the_program_lays_the_named_file_over_its_own(tmp_path: Path) -> None:
    for file in ROOT.glob("*.py"):
        shutil.copy(file, tmp_path)
    for folder in ("finetuning", "examples"):
        (tmp_path / folder).symlink_to(ROOT / folder, target_is_directory=True)
    written(tmp_path, "config.yaml", "training: {weight_decay: 0.5, epochs: 7}")
    recipe = (ROOT / "recipes" / "quickstart.yaml").read_text(encoding="utf-8")
    written(tmp_path, "own.yaml", recipe)
    done = subprocess.run(
        [sys.executable, "finetuning_app.py", "plan", "--config", "own.yaml"],
        cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "training.weight_decay: 0.5 (config.yaml)" in done.stdout
    assert "training.weight_decay=0.5" in done.stderr and "training.epochs=" not in done.stderr
