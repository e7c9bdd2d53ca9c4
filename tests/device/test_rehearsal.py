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
from tests.support.paths import ROOT

pytest.importorskip("torch.utils.backend_registration", reason="torch has no device of Python's")
_READS_LOSSES = "finetuning/training/step.py: sums_and_norms"


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
        "right": "", "stray tensor": "FakeTensorDeviceMismatchError", "item": "WaitsForTheDevice",
        "bool": "WaitsForTheDevice", "nonzero": "WaitsForTheDevice", "mask": "WaitsForTheDevice",
        "copy to the host": "WaitsForTheDevice", "tolist": "WaitsForTheDevice",
    }  # fmt: skip


@pytest.mark.parametrize("task", sorted(task_classes()))
def test_a_task_trains_and_evaluates_on_a_gpu(task: str, flags_for: Callable[[str], list[str]], tmp_path: Path) -> None:
    """Layouts, optimizers and adapters in pairs. AdamW's steps wait for nothing between two lines of the log."""
    flags = flags_for(task)
    model = flags[flags.index("--model_name") + 1]
    walks = run_module("tests.support.rehearsal.walk", model, str(tmp_path), task)
    assert not {name: walk["error"] for name, walk in walks.items() if walk["error"]}
    names = [name for name in walks if not name.startswith(("evaluation", "generation"))]
    assert {name.rpartition(", ")[2] for name in names} == {"none", "lora", "dora", "freeze"}
    without_padding = [name for name in names if name.startswith(("Dense", "OneRow")) and ", adamw" in name]
    assert without_padding or task == "text2text-generation"
    for name in without_padding:
        if "in backward" not in name:
            assert set(walks[name]["waits"]) == {_READS_LOSSES}, name
