"""Training on machines that share no folder: each is a group of processes with a working directory of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
from safetensors.torch import load_file

from tests.support.cli import Cli, read_json
from tests.support.forked import free_port, run_on_machines
from tests.support.paths import ROOT

pytestmark = pytest.mark.skipif(os.name != "posix", reason="gloo is tried where processes are forked")
_ALONE: Mapping[str, str] = MappingProxyType({})
_ELASTIC = {"TORCHELASTIC_MAX_RESTARTS": "1", "TORCHELASTIC_RESTART_COUNT": "0"}
STEPS = ["step-00000004", "step-00000008", "step-00000009"]


class Machines:
    """Two machines; `model` is the folder of the run on the disk of each."""

    def __init__(self, home: Path, model: Path, data: Path) -> None:
        self.disks = [home / "first", home / "second"]
        for disk in self.disks:
            disk.mkdir(parents=True, exist_ok=True)
        settings = ("logging.report=false", "logging.progress_bar=false", "training.save_steps=4",
                    "training.save_total_limit=9", "data.dataset_cache_dir=cache")  # fmt: skip
        self.words = [
            "--model_name", str(model), "--dataset", str(data), "--max_length", "64", "--output_dir", "model",
            "--batch_size", "2", "--gradient_accumulation_steps", "2", "--epochs", "1", "--no-mixed_precision",
            *[word for one in settings for word in ("--set", one)],
        ]  # fmt: skip

    def train(
        self,
        shard: str,
        *more: str,
        disks: Sequence[int] = (0, 1),
        each: int = 1,
        environment: Mapping[str, str] = _ALONE,
    ) -> tuple[set[int], str]:
        """The exit codes and the log of a run on these disks, the first of them the main machine's."""
        words = [*self.words, "--set", f"distributed.shard={shard}", *more]
        done = run_on_machines([self.disks[number] for number in disks], words, each, environment=environment)
        return {code for code, *_ in done}, "".join(err for *_, err in done)

    def files(self, disk: int, pattern: str) -> list[str]:
        """The files in the folder of the run on a disk."""
        return sorted(path.name for path in (self.disks[disk] / "model").glob(pattern))

    def weights(self, disk: int = 0) -> dict[str, torch.Tensor]:
        """The model that a run has left."""
        return load_file(self.disks[disk] / "model" / "model.safetensors")

    def go_back(self, *disks: int) -> None:
        """Leave of the run what a kill after step 7 leaves."""
        for disk in disks:
            model = self.disks[disk] / "model"
            for path in model.iterdir() if model.is_dir() else ():
                if path.name not in ("checkpoints", "run.json", "chat_template.jinja", "vocabulary.json"):
                    path.unlink() if path.is_file() else shutil.rmtree(path)
            for step in STEPS[1:]:
                shutil.rmtree(model / "checkpoints" / step, ignore_errors=True)


def same(weights: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> bool:
    return weights.keys() == others.keys() and all(torch.equal(weights[name], others[name]) for name in weights)


def test_each_machine_keeps_its_shards_and_the_run_goes_on_from_all_of_them(
    tiny_model: Path, reviews: Path, tmp_path: Path, cli: Cli
) -> None:
    machines = Machines(tmp_path, tiny_model, reviews)
    codes, log = machines.train("full")
    assert codes == {0}, log
    host = socket.gethostname()
    assert log.count("노드들이 output_dir를 공유하지 않습니다") == 1
    assert f"0번 노드({host}), 1번 노드({host})" in log
    whole = machines.weights()
    assert machines.files(1, "*") == ["checkpoints"]  # the result lies with the main process
    for disk in (0, 1):
        assert machines.files(disk, "checkpoints/*") == STEPS
        shards = machines.files(disk, f"checkpoints/{STEPS[0]}/shard-*")
        assert [name[:11] for name in shards] == [f"shard-0000{disk + 1}"]
        assert list((machines.disks[disk] / "cache" / "prepared").glob("examples-*"))  # tokenised on each

    # each goes on with its own part; the machine that comes first may be another one, as after a new start
    # also where a kill came when the checkpoint had its name on one disk alone
    machines.go_back(0, 1)
    saved = machines.disks[0] / "model" / "checkpoints" / STEPS[0]
    saved.rename(saved.with_name(f".{STEPS[0]}.partial-4194305"))
    codes, log = machines.train("full", "--resume", disks=(1, 0))
    assert codes == {0}, log
    assert "스텝 4까지 마친 체크포인트에서 이어서 학습합니다" in log
    assert same(machines.weights(1), whole)

    # by one process, where both parts were brought together
    machines.go_back(0, 1)
    for shard in (machines.disks[1] / "model" / "checkpoints" / STEPS[0]).glob("shard-*"):
        shutil.copy(shard, machines.disks[0] / "model" / "checkpoints" / STEPS[0])
    alone = ["--resume", "--batch_size", "4", "--output_dir", str(machines.disks[0] / "model"),
             "--set", f"data.dataset_cache_dir={machines.disks[0] / 'cache'}"]  # fmt: skip
    run = cli(*machines.words, *alone)
    assert run.code == 0 and "스텝 4까지 마친 체크포인트에서 이어서 학습합니다" in run.err, run.err
    assert read_json(machines.disks[0] / "model" / "summary.json")["steps"] == 9

    # a machine without its part is named
    machines.go_back(0, 1)
    for shard in (machines.disks[0] / "model" / "checkpoints" / STEPS[0]).glob("shard-00002-*"):
        shard.unlink()
    shutil.rmtree(machines.disks[1] / "model")
    codes, log = machines.train("full", "--checkpoint_path", f"model/checkpoints/{STEPS[0]}")
    assert codes == {4}, log
    assert log.count("오류: ") == log.count(f"1번 노드({host}) 몫인 shard-00002") == 1, log
    assert "Traceback" not in log

    # nor does a run begin anew over what a machine still has
    codes, log = machines.train("full", disks=(1, 0), environment=_ELASTIC)
    assert codes == {4} and log.count("오류: ") == log.count(f"1번 노드({host}) 몫인 shard-00002") == 1, log
    codes, log = machines.train("full", disks=(1, 0))
    assert codes == {2} and log.count("오류: ") == log.count(f"1번 노드({host})의 model/checkpoints") == 1, log
    assert machines.files(0, f"checkpoints/{STEPS[0]}/shard-*")

    # where no machine has any of a run, a group that is started again begins anew
    shutil.rmtree(machines.disks[0] / "model")
    left = machines.disks[0] / "model" / ".model.copied" / "config.json"  # by a kill
    left.parent.mkdir(parents=True)
    left.touch()
    codes, log = machines.train("full", disks=(1, 0), environment={**_ELASTIC, "TORCHELASTIC_RESTART_COUNT": "1"})
    assert codes == {0} and "이어서 학습합니다" not in log, log
    assert log.count("저장된 체크포인트가 없어 처음부터 다시 학습합니다") == 1, log
    assert not left.parent.exists()
    # so it does behind a run that has ended, whichever machine comes first
    codes, log = machines.train("full", environment=_ELASTIC)
    assert codes == {0} and "이어서 학습합니다" not in log, log
    assert (machines.disks[0] / "model-2" / "run.json").is_file()


def test_whole_models_are_saved_by_the_main_machine_and_sent_to_the_others(
    tiny_model: Path, reviews: Path, tmp_path: Path
) -> None:
    machines = Machines(tmp_path, tiny_model, reviews)
    codes, log = machines.train("none")
    assert codes == {0}, log
    assert log.count("노드들이 output_dir를 공유하지 않습니다") == 1 and "이 노드에만" in log
    assert not (machines.disks[1] / "model").exists()
    whole = machines.weights()
    machines.go_back(0)
    codes, log = machines.train("none", "--checkpoint_path", f"model/checkpoints/{STEPS[0]}")
    assert codes == {0}, log
    assert "스텝 4까지 마친 체크포인트에서 이어서 학습합니다" in log
    assert same(machines.weights(), whole)
    assert not (machines.disks[1] / "model").exists()


@pytest.mark.soak
def test_two_launchers_with_separate_folders(tiny_model: Path, reviews: Path, tmp_path: Path) -> None:
    """`torchrun --nnodes 2` on each of two machines with two processes each."""
    machines, port = Machines(tmp_path, tiny_model, reviews), free_port()
    words = [*machines.words, "--batch_size", "1", "--set", "distributed.shard=hybrid"]
    for more in ([], ["--resume"]):
        launchers = [
            subprocess.Popen(
                [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node_rank={number}",
                 "--nproc_per_node=2", "--master_addr=127.0.0.1", f"--master_port={port}",
                 str(ROOT / "finetuning_app.py"), *words, *more],
                cwd=disk, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            for number, disk in enumerate(machines.disks)
        ]  # fmt: skip
        logs = [launcher.communicate(timeout=300)[1] for launcher in launchers]
        assert [launcher.returncode for launcher in launchers] == [0, 0], logs
        assert "".join(logs).count("노드들이 output_dir를 공유하지 않습니다") == 1
        if not more:
            whole = machines.weights()
            machines.go_back(0, 1)
    assert same(machines.weights(), whole)
