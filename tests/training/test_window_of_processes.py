"""A run that goes on with another number of processes trains on the windows that it had."""

from __future__ import annotations

import pytest

from finetuning.checkpoints.fingerprint import WINDOW_SIZE
from finetuning.config.schema import Settings
from finetuning.training.resume import with_window_of


@pytest.mark.parametrize(
    ("processes", "batch", "accumulation"), [(16, 4, 2), (8, 4, 4), (32, 4, 1), (64, 2, 1), (3, 4, 2)]
)
def test_the_window_stays_and_micro_batches_do_not_grow(processes: int, batch: int, accumulation: int) -> None:
    begun = Settings.model_validate({"data": {"batch_size": 4}, "memory": {"gradient_accumulation_steps": 2}})
    now = with_window_of({WINDOW_SIZE: 4 * 2 * 16}, begun, processes)
    assert (now.data.batch_size, now.memory.gradient_accumulation_steps) == (batch, accumulation)
