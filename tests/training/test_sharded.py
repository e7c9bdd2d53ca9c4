"""What is said of sharding before training."""

from __future__ import annotations

import pytest
from accelerate import Accelerator

from finetuning.config.schema import Settings
from finetuning.device.runtime import Runtime
from finetuning.training.sharded import tell_of_sharding


@pytest.mark.parametrize(("shard", "lines"), [("none", 0), ("full", 1), ("hybrid", 1)])
def test_one_process_says_that_it_divides_nothing(shard: str, lines: int, caplog: pytest.LogCaptureFixture) -> None:
    tell_of_sharding(Settings.model_validate({"distributed": {"shard": shard}}), Runtime(Accelerator(cpu=True)))
    assert [record.levelname for record in caplog.records] == ["WARNING"] * lines
    assert caplog.text.count(f"distributed.shard: {shard}") == caplog.text.count("torchrun") == lines
