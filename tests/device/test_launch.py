"""Variables that torchrun and accelerate leave in the environment."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import DistStoreError, HashStore
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from exceptions import ResourceError, SettingsError
from finetuning.commands.command_line import resume_command
from finetuning.device.launch import check_launch, number_of_start, unused_settings
from finetuning.device.peers import OWN_LAUNCHER, accelerate_words
from finetuning.device.runtime import start_runtime
from finetuning.device.torchrun import launch
from tests.support.cli import Cli
from tests.support.forked import places_in_group
from tests.support.launches import launched
from tests.support.paths import ROOT

WHOLE = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    "environment",
    [
        {"WORLD_SIZE": "4"},
        {"LOCAL_RANK": "0"},
        {"RANK": "x", "LOCAL_RANK": "0", "WORLD_SIZE": "2"},
        {**WHOLE, "RANK": "2"},
        {name: value for name, value in WHOLE.items() if name != "MASTER_PORT"},
    ],
)
def test_part_of_another_launch_is_refused_with_the_command_that_removes_it(environment: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as error:
        check_launch(environment)
    assert "unset " in error.value.remedy and all(name in error.value.remedy for name in environment)


@pytest.mark.parametrize(
    "environment", [{}, WHOLE, {"WORLD_SIZE": "1", "RANK": "0"}, {"PMI_RANK": "0", "WORLD_SIZE": "2"}]
)
def test_a_whole_place_and_none_are_fine(environment: dict[str, str]) -> None:
    check_launch(environment)


@pytest.mark.parametrize(
    "name",
    [
        "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM",
        "ACCELERATE_USE_PARALLELISM_CONFIG",
    ],
)  # fmt: skip
def test_an_engine_that_is_not_used_is_refused_by_name(name: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "true")
    run = cli("predict", "--output_dir", "no-such")
    assert run.code == 2 and name in run.err and "Traceback" not in run.err
    assert "distributed.shard=full" in run.err


def test_a_left_over_launch_is_no_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    run = cli("predict", "--output_dir", "no-such")
    assert run.code == 2 and "WORLD_SIZE=4" in run.err and "unset WORLD_SIZE" in run.err


def test_settings_of_accelerate_that_differ_from_the_run_are_told() -> None:
    asked = {
        "ACCELERATE_MIXED_PRECISION": "fp8", "ACCELERATE_DYNAMO_BACKEND": "INDUCTOR",
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "8",
    }  # fmt: skip
    notes = " ".join(unused_settings(asked, "bf16"))
    assert all(name in notes for name in asked)
    usual: dict[str, Any] = {
        "ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_DYNAMO_BACKEND": "no",
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1",
    }  # fmt: skip
    assert unused_settings(usual, "bf16") == []


def test_accelerate_on_a_cpu_is_told_to_have_started_one_process() -> None:
    alone = {"ACCELERATE_USE_CPU": "True", "ACCELERATE_DYNAMO_BACKEND": "no"}
    assert any("torchrun --nproc_per_node" in note for note in unused_settings(alone, "no"))
    assert unused_settings({**alone, "WORLD_SIZE": "2"}, "no") == []


def test_what_accelerate_was_given_is_named_by_the_command_to_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["./finetuning_app.py", "--epochs", "2"])
    started = ["/usr/bin/python", "/usr/bin/accelerate", "launch", "--config_file", "two cards.yaml"]
    words = accelerate_words([*started, "finetuning_app.py", "--epochs", "2"])
    assert words == ["accelerate", "launch", "--config_file", "two cards.yaml"]
    assert accelerate_words(["/usr/bin/python", "finetuning_app.py"]) == accelerate_words([]) == []


def test_a_batch_script_is_named_in_place_of_the_launcher_inside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "4711")
    monkeypatch.setenv("FINETUNING_SCRIPT", "sbatch recipes/slurm.sh")
    assert resume_command(["--epochs", "2"]) == "sbatch recipes/slurm.sh --epochs 2 --resume"


def test_the_processes_of_each_start_agree_on_its_number() -> None:
    store, wait = HashStore(), timedelta(seconds=60)
    store.set("asks/1", "a process that ended before it was answered")
    for size in (3, 3, 2):
        with ThreadPoolExecutor(size) as pool:
            found = list(pool.map(lambda rank, size=size: number_of_start(store, rank, size, wait), range(size)))
        assert len(set(found)) == 1
        assert found[0] == store.add("starts", 0)
    assert found[0] == 3
    with pytest.raises(DistStoreError):
        number_of_start(store, 0, 3, timedelta(0))


@pytest.mark.parametrize("rank", [0, 1])  # the first process waits for the others, which look for it
def test_processes_that_do_not_find_each_other_say_so_in_one_message(
    rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = places_in_group(2)[rank]
    for name, value in {**place, "TORCHELASTIC_MAX_RESTARTS": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ResourceError, match="연결하지 못해 시작하지 않았습니다") as raised:
        start_runtime("no", deterministic=False, wait=timedelta(seconds=1))
    assert f"2개 가운데 {rank}번" in raised.value.where and place["MASTER_PORT"] in raised.value.where


@pytest.mark.skipif(os.name != "posix", reason="torchrun is tried where there is gloo")
def test_what_all_processes_refuse_is_said_although_the_first_one_comes_last(tmp_path: Path) -> None:
    program, second = tmp_path / "program.py", tmp_path / "second-has-begun"
    program.write_text(
        "import os, sys\nfrom pathlib import Path\nfrom finetuning_app import main\n"
        f"second = Path({str(second)!r})\n"
        "second.touch() if os.environ['RANK'] == '1' else None\n"
        "while not second.exists():\n    pass\n"
        "sys.exit(main(['--set', 'no.such=1']))\n",
        encoding="utf-8",
    )  # fmt: skip
    done = launched(2, program, PYTHONPATH=str(ROOT))
    assert done.returncode == 2 and done.stderr.count("오류: ") == 1 and "no.such" in done.stderr, done.stderr
    assert "멈췄습니다" not in done.stderr and "Traceback" not in done.stderr, done.stderr


@pytest.mark.skipif(os.name != "posix", reason="torchrun is tried where there is gloo")
def test_a_launch_ends_with_the_code_of_the_process_that_failed(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import os, sys\nsys.exit(4 * int(os.environ['RANK']))\n", encoding="utf-8")
    done = launched(2, program)
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr


def test_a_launch_ends_as_a_shell_does_where_a_process_was_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: object) -> None:
        raise ChildFailedError("program", {1: ProcessFailure(1, 2, -9, "no-file")})

    monkeypatch.setattr("torch.distributed.run.run", run)
    monkeypatch.setenv(OWN_LAUNCHER, "")
    assert launch(["program.py"]) == 128 + 9
