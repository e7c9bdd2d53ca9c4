"""What takes minutes: thousands of steps, a gigabyte on one line, a worker process that dies. `make soak` runs them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from exceptions import DataError
from tests.support.cli import arguments_for
from tests.support.paths import ROOT
from tests.support.runs import StopAfter, losses, run_train

pytestmark = [pytest.mark.soak, pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL")]
STEPS = int(os.environ.get("STEPS", "20000"))
GIB = 1 << 30


class Watch(StopAfter):
    """Never asks for a stop; notes what the process holds, every so many steps: bytes, open files, threads."""

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every, self.looked, self.process = every, 0, psutil.Process()
        self.held: list[tuple[int, int, int]] = []

    def pending(self) -> int | None:
        self.looked += 1
        if self.looked % self.every == 0:
            self.held.append(
                (self.process.memory_info().rss, self.process.num_fds(), self.process.num_threads())
            )  # fmt: skip
        return None


def test_a_long_run_does_not_leak_memory(
    tiny_model: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetuning.reporting.log.set_up_logging", lambda *_: None)
    watch = Watch(STEPS // 100)
    epochs = -(-STEPS // 8)  # of 8 windows each
    often = ["--epochs", str(epochs), "--set", "training.save_steps=100", "--set", "training.eval_steps=500",
             "--set", "logging.log_steps=200", "--set", "logging.progress_bar=false"]  # fmt: skip
    monkeypatch.setattr("training_manager.TrainingManager._evaluate", _now_and_then(500))
    run_train(arguments_for(tiny_model, reviews, tmp_path / "run" / "model", *often), watch)
    held = np.array(watch.held[len(watch.held) // 5 :])  # once caches have what they will have
    thirds = np.array_split(held, 3)
    rss, files, threads = (np.median(thirds[-1], axis=0) - np.median(thirds[0], axis=0)).tolist()
    print(f"\n{watch.looked} steps: RSS {rss / 2**20:+.1f} MiB, open files {files:+.0f}, threads {threads:+.0f}")
    assert rss < 16 * 2**20
    assert files <= 0
    assert threads <= 0
    assert len(list((tmp_path / "run" / "model" / "checkpoints").iterdir())) == 2


def _now_and_then(every: int) -> Any:
    """Evaluation as it is, but for most of the epochs' ends: eight steps apart they would take nearly all the time."""
    from training_manager import TrainingManager

    evaluate = TrainingManager._evaluate

    def seldom(manager: TrainingManager, epoch_ended: bool) -> None:
        if manager.state.step % every < 8 or manager.state.step == manager.total_steps:
            evaluate(manager, epoch_ended)

    return seldom


READ = """
import resource, sys
from pathlib import Path
from exceptions import DataError
from finetuning.data.formats.registry import open_source
try:
    rows = sum(1 for _ in open_source(Path(sys.argv[1]), None).rows)
    print(rows)
except DataError as error:
    print("DataError", error.what)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.parametrize(("suffix", "begins"), [(".csv", "text,label\n\"'"), (".csv", ""), (".jsonl", '{"text": "'),
                                                (".json", "["), (".txt", ""), (".tsv", "a\tb\n")])  # fmt: skip
def test_a_gigabyte_on_one_line(tmp_path: Path, suffix: str, begins: str) -> None:
    path = tmp_path / f"huge{suffix}"
    with path.open("wb") as file:
        file.write(begins.encode())
        for _ in range(GIB >> 20):
            file.write(b"a" * (1 << 20))
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    path.unlink()
    assert done.returncode == 0, done.stderr[-2000:]
    said, peak = done.stdout.splitlines()
    print(f"\n{suffix}: {said}, {int(peak) / GIB:.2f} GiB at most")
    assert DataError.__name__ in said
    assert int(peak) < (3 if suffix == ".json" else 1) * GIB  # an array is read whole


def test_a_worker_that_dies_ends_the_run_and_one_process_goes_on(
    tiny_model: Path, reviews: Path, tmp_path: Path
) -> None:
    """Two processes, one killed; the run is taken up by one process with the same windows, and ends with its losses."""
    still = tmp_path / "still"
    shutil.copytree(tiny_model, still)
    config = json.loads((still / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (still / "config.json").write_text(json.dumps(config))
    output_dir, whole = tmp_path / "two" / "model", tmp_path / "one" / "model"
    often = ["--set", "training.save_steps=2", "--no-mixed_precision"]
    code, log = _kill_a_worker(
        arguments_for(still, reviews, output_dir, "--gradient_accumulation_steps", 1, *often), "epoch 2 스텝 12/"
    )
    assert code != 0
    assert list((output_dir / "checkpoints").glob("step-*")), log[-3000:]
    for folder, resume in ((output_dir, ["--resume"]), (whole, [])):
        done = subprocess.run(
            [sys.executable, str(ROOT / "finetuning_app.py"), *arguments_for(still, reviews, folder, *often), *resume],
            cwd=ROOT, capture_output=True, text=True, timeout=280,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
    assert [record["step"] for record in losses(output_dir)] == [record["step"] for record in losses(whole)]
    for ours, theirs in zip(losses(output_dir), losses(whole), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)


def _kill_a_worker(arguments: list[str], line: str) -> tuple[int, str]:
    """A run of two processes whose second is killed when the log says `line`: the launcher's exit code, and the log."""
    launcher = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
         str(ROOT / "finetuning_app.py"), *arguments],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    guard = threading.Timer(200, launcher.kill)
    guard.start()
    log = ""
    assert launcher.stderr is not None
    for said in launcher.stderr:
        log += said
        if line in said:
            workers = [child for child in psutil.Process(launcher.pid).children() if _rank(child) == "1"]
            os.kill(workers[0].pid, signal.SIGKILL)
            line = "\0"
    guard.cancel()
    return launcher.wait(), re.sub(r"\r", "\n", log)


def _rank(process: psutil.Process) -> str | None:
    return process.environ().get("RANK")
