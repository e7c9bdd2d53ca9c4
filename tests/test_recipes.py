"""Recipes: each loads, names a task that there is, and says how it is run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from config_manager import ConfigManager
from finetuning.config.recipes import FOLDER, RecipeList, recipe_list, recipe_path, settings_files
from finetuning.reporting.metric_names import METRIC_NAMES
from finetuning.tasks.registry import find_task, task_classes
from tests.support.paths import ROOT

RECIPES = settings_files()
LISTS = [listing for path in sorted(FOLDER.glob("*.yaml")) if (listing := recipe_list(path)) is not None]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads_and_says_how_to_run_it(path: Path) -> None:
    settings = ConfigManager.load(path, {})
    assert find_task(settings).name in task_classes()
    header = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert any(f"python finetuning_app.py --config recipes/{path.name}" in line for line in header)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_what_a_recipe_expects_is_measured_and_has_a_source(path: Path) -> None:
    settings = ConfigManager.load(path, {})
    expected = settings.expectation
    if expected.metric is None:
        assert expected.score is None and expected.source is None
        return
    assert expected.metric in METRIC_NAMES
    most = 100.0 if settings.model.task == "question-answering" else 1.0  # this program's unit
    assert expected.score is not None and 0 < 10 * expected.band < most / 2 < expected.score <= most
    assert expected.model == settings.model.name and expected.rows is not None
    assert expected.source is not None and "https://" in expected.source


def test_no_two_recipes_write_into_one_folder() -> None:
    folders = [ConfigManager.load(path, {}).model.output_dir for path in RECIPES]
    assert len(set(folders)) == len(folders)


@pytest.mark.parametrize(
    ("recipe", "task"),
    [("klue-nli", "text-classification"), ("korsts", "text-regression"), ("multi-label", "multi-label-classification")],
)
def test_a_recipe_means_its_task(recipe: str, task: str) -> None:
    assert find_task(ConfigManager.load(ROOT / "recipes" / f"{recipe}.yaml", {})).name == task


@pytest.mark.parametrize("listing", LISTS, ids=lambda listing: listing.name)
def test_a_list_names_recipes_and_the_scores_that_they_expect(listing: RecipeList) -> None:
    for one in listing.recipes:
        expected = ConfigManager.load(recipe_path(one.name), {}).expectation
        assert set(one.published) <= METRIC_NAMES.keys() and "https://" in listing.source
        if expected.metric in one.published:
            assert one.published[expected.metric] == expected.score and expected.source == listing.source


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_the_script_for_slurm_is_one() -> None:
    script = str(ROOT / "recipes" / "slurm.sh")
    checks = [["bash", "-n"], *([["shellcheck"]] if shutil.which("shellcheck") else [])]
    for check in checks:
        done = subprocess.run([*check, script], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
