"""Sharded models: what is said of them before training, and the best one on a disk that fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from accelerate import Accelerator

from finetuning.config.schema import Settings
from finetuning.device.runtime import Runtime
from finetuning.training.sharded import tell_of_sharding
from tests.support.forked import run_group
from tests.support.saves_together import keep_the_best


@pytest.mark.parametrize(("shard", "lines"), [("none", 0), ("full", 1), ("hybrid", 1)])
def test_one_process_says_that_it_divides_nothing(shard: str, lines: int, caplog: pytest.LogCaptureFixture) -> None:
    tell_of_sharding(Settings.model_validate({"distributed": {"shard": shard}}), Runtime(Accelerator(cpu=True)))
    assert [record.levelname for record in caplog.records] == ["WARNING"] * lines
    assert caplog.text.count(f"distributed.shard: {shard}") == caplog.text.count("torchrun") == lines


@pytest.mark.skipif(os.name != "posix", reason="gloo is tried where processes are forked")
def test_a_best_model_that_the_disk_did_not_take_holds_up_no_process(tmp_path: Path) -> None:
    done = run_group(2, [str(tmp_path / "run")], tmp_path, program=keep_the_best)
    assert [code for code, *_ in done] == [0, 0], done
