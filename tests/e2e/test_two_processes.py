"""Several processes on one output_dir: all use the folder that the first one chose, and it is told once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cli import Cli, arguments_for, read_json
from tests.support.paths import ROOT

pytestmark = pytest.mark.skipif(os.name != "posix", reason="gloo is tried where the launcher runs")


def on_two(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
         str(ROOT / "finetuning_app.py"), *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=280,
    )  # fmt: skip


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_processes_agree_on_the_folder_of_a_second_run_and_resume_it(
    cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "model", tmp_path / "model-2"
    flags = arguments_for(tiny_model, reviews, first, "--epochs", 1)
    assert cli(*flags).code == 0
    assert cli("evaluate", *flags[2:8], "--split", "test").code == 0  # leaves its metrics there as well
    before = content(first)

    done = on_two(*flags)
    assert done.returncode == 0, done.stderr[-3000:]
    assert content(first) == before
    assert read_json(second / "run.json") == {"output_dir": "model", "number": 2}
    assert done.stderr.count("그대로 두고 새 폴더에 학습합니다") == 1
    assert (second / "model.safetensors").is_file() and (second / "summary.json").is_file()

    longer = [*flags, "--epochs", 2, "--resume"]
    resumed = on_two(*longer)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert resumed.stderr.count("가장 최근 학습을 이어 갑니다") == 1
    assert resumed.stderr.count("체크포인트에서 이어서 학습합니다") == 1
    assert content(first) == before
    assert sorted(path.name for path in tmp_path.glob("model*")) == ["model", "model-2"]
    assert read_json(second / "summary.json")["steps"] == 2 * 4
