"""`torchrun --max-restarts` starts a group again, and `--nnodes 1:2` goes on where one of two machines dies."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.support.cli import arguments_for, read_json
from tests.support.forked import free_port
from tests.support.launches import launched
from tests.support.paths import ROOT

pytestmark = [pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL"), pytest.mark.soak]
_EPOCHS, _WINDOWS = 60, 5  # 72 examples, windows of 16


def die(launcher: subprocess.Popen[bytes]) -> None:
    """Kill a launcher and all that it started, as a machine that loses its power does."""
    members = [psutil.Process(launcher.pid), *psutil.Process(launcher.pid).children(recursive=True)]
    for process in members:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    launcher.wait()


def test_a_group_that_lost_a_process_is_started_again(tiny_model: Path, reviews: Path, tmp_path: Path) -> None:
    flags = arguments_for(
        tiny_model, reviews, tmp_path / "model", "--epochs", 2, "--set", "training.save_steps=2", "--set",
        "distributed.shard=full",
    )  # fmt: skip
    done = launched(2, "tests/support/dies.py", *flags, options=["--max-restarts=1"])
    assert done.returncode == 0, done.stderr[-5000:]
    assert done.stderr.count("스텝 2까지 마친 체크포인트에서 이어서 학습합니다") == 1
    assert read_json(tmp_path / "model" / "summary.json")["steps"] == 2 * 4


def test_a_run_goes_on_with_one_machine_fewer(tiny_model: Path, reviews: Path, tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log.txt"
    flags = arguments_for(
        tiny_model, reviews, tmp_path / "model", "--epochs", _EPOCHS, "--batch_size", 4, "--set",
        "training.save_steps=4", "--set", "logging.progress_bar=false",
    )  # fmt: skip

    def machine(number: int) -> subprocess.Popen[bytes]:
        rendezvous = (f"--rdzv_conf=is_host={int(number == 0)},last_call_timeout=3,keep_alive_interval=1,"
                      "keep_alive_max_attempt=3")  # fmt: skip
        with log.open("ab") as file:
            return subprocess.Popen(
                [sys.executable, "-m", "torch.distributed.run", "--nnodes=1:2", "--nproc_per_node=1",
                 "--max-restarts=3", "--rdzv_backend=c10d", f"--rdzv_endpoint=127.0.0.1:{port}",
                 "--rdzv_id=elastic", rendezvous, "finetuning_app.py", *flags],
                cwd=ROOT, stderr=file, env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    first, second = machine(0), machine(1)
    try:
        while not list((tmp_path / "model" / "checkpoints").glob("step-*/manifest.json")):
            with suppress(subprocess.TimeoutExpired):
                assert first.wait(0.2) is None, log.read_text(encoding="utf-8")  # it may not end yet
        die(second)
        code = first.wait(240)
    finally:
        for launcher in (first, second):
            if launcher.poll() is None:
                die(launcher)
    said = log.read_text(encoding="utf-8")
    assert code == 0, said[-5000:]
    assert "프로세스: 2개" in said and "프로세스가 1개여서, 한 스텝의 예제 16개가 그대로이도록" in said, said[-5000:]
    assert "체크포인트에서 이어서 학습합니다" in said
    assert read_json(tmp_path / "model" / "summary.json")["steps"] == _EPOCHS * _WINDOWS
