"""recipes/slurm.sh on a cluster that is faked: what it starts on the nodes is a command line that all sides take."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from torch.distributed.run import parse_args

from finetuning_app import build_parser
from tests.support.paths import ROOT

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
SCRIPT = ROOT / "recipes" / "slurm.sh"
FLAGS = ("--recipe", "chatbot", "--output_dir", "./models/한 글", "--set", "distributed.shard=full")
JOB = {
    "SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_NODELIST": "gpu-[07-09]", "SLURM_JOB_NUM_NODES": "3",
    "SLURM_GPUS_ON_NODE": "4", "SLURM_JOB_ID": "4711",
}  # fmt: skip


def submitted(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script with an `srun` that writes its words, and the folder it is in, to a file."""
    commands = {
        "srun": 'printf "%s\\0" "$FINETUNING_SCRIPT" "$PWD" "$@" > words',
        "scontrol": '[ "$*" = "show hostnames gpu-[07-09]" ] && printf "gpu-07\\ngpu-08\\ngpu-09\\n"',
    }
    for name, body in commands.items():
        (folder / name).write_text(f"#!/bin/bash\n{body.replace('> words', f'> {folder}/words')}\n", encoding="utf-8")
        (folder / name).chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", str(SCRIPT), *FLAGS], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PATH": path, "PYTHON": sys.executable, **environment},
    )  # fmt: skip


def test_each_node_starts_torchrun_with_the_programs_flags(tmp_path: Path) -> None:
    assert subprocess.run(["bash", "-n", str(SCRIPT)]).returncode == 0
    done = submitted(tmp_path, **JOB)
    assert done.returncode == 0, done.stderr
    script, folder, *words = (tmp_path / "words").read_text(encoding="utf-8").split("\0")[:-1]
    assert (script, Path(folder)) == ("sbatch recipes/slurm.sh", ROOT)

    start = words.index(sys.executable)
    assert all(word.startswith("--") for word in words[:start])  # of srun
    assert words[start + 1 : start + 3] == ["-m", "finetuning.device.torchrun"]
    launch = parse_args(words[start + 3 :])
    assert (launch.nnodes, launch.nproc_per_node, launch.max_restarts) == ("3", "4", 3)
    assert (launch.rdzv_backend, launch.rdzv_id, launch.rdzv_endpoint) == ("c10d", "4711", "gpu-07:24711")
    assert (ROOT / launch.training_script).is_file()
    assert tuple(launch.training_script_args) == FLAGS
    assert build_parser().parse_args(launch.training_script_args).output_dir == FLAGS[3]


def test_outside_of_a_job_it_says_how_it_is_run(tmp_path: Path) -> None:
    done = submitted(tmp_path, **{name: "" for name in JOB})
    assert done.returncode != 0 and "sbatch" in done.stderr
    assert not (tmp_path / "words").exists()
