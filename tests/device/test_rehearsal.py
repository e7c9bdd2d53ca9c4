"""Every task on a GPU that is not there: no tensor is left on the CPU, and the host waits only where it is meant to."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetuning.tasks.registry import task_classes
from finetuning.training.results import sums_and_norms
from tests.support.paths import ROOT
from tests.support.rehearsal.walk import ALIKE, all_variants, few_variants

pytest.importorskip("torch.utils.backend_registration", reason="torch has no device of Python's")
_READS_LOSSES = f"{sums_and_norms.__module__.replace('.', '/')}.py: {sums_and_norms.__name__}"


def run_module(*arguments: str) -> Any:
    """Run a module, in a process of its own, and return the JSON in its last line."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_what_is_wrong_on_a_gpu_is_caught() -> None:
    caught = run_module("tests.support.rehearsal.fake_gpu")
    assert caught == {
        "right": "", "stray tensor": "two devices", "item": "WaitsForTheDevice",
        "bool": "WaitsForTheDevice", "nonzero": "WaitsForTheDevice", "mask": "WaitsForTheDevice",
        "copy to the host": "WaitsForTheDevice", "tolist": "WaitsForTheDevice",
    }  # fmt: skip


Walks = dict[str, dict[str, Any]]  # of a task, by the name of the walk


@pytest.fixture(scope="module", params=["few", pytest.param("all", marks=pytest.mark.soak)])
def walks(
    request: pytest.FixtureRequest, model_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, Walks]]:
    """How many adapters and optimizers, and every task's walks, in one process: its imports take as long as some."""
    tasks = [f"{task}={model_of(task)}" for task in task_classes()]
    folder = str(tmp_path_factory.mktemp("walks"))
    return request.param, run_module("tests.support.rehearsal.walk", folder, request.param, *tasks)


@pytest.mark.parametrize("task", sorted(task_classes()))
def test_a_task_trains_and_evaluates_on_a_gpu(task: str, walks: tuple[str, dict[str, Walks]]) -> None:
    """Layouts, ways of attention, optimizers and adapters in pairs. No step waits between two lines of the log."""
    how_many, of_task = walks[0], walks[1][task]
    assert not {name: walk["error"] for name, walk in of_task.items() if walk["error"]}
    names = [name for name in of_task if not name.startswith(("evaluation", "generation"))]
    variants = few_variants(task) if how_many == "few" else all_variants(task)
    assert {name.rpartition(", ")[2] for name in names} == set(variants.adapters)
    without_padding = [name for name in names if name.startswith(("Dense", "OneRow"))]
    assert without_padding or task == "text2text-generation"
    for name in without_padding:
        assert set(of_task[name]["waits"]) == {_READS_LOSSES}, name
    ways = {name.partition("(")[2].partition(")")[0] for name in without_padding}
    if task in ALIKE:
        assert ways == {"efficient"}
    elif task == "text-generation" or (task, how_many) == ("text-classification", "all"):
        assert ways == {"efficient", "flash", "padded"}
