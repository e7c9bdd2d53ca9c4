"""The time in which training waits for the next window."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from finetuning.reporting.throughput import Tally
from finetuning.training import ledger
from tests.support.managers import make_manager


class Clock:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


def test_the_wait_for_a_window_counts_and_the_step_after_it_does_not(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager, clock = make_manager(tiny_model, tmp_path, "text-classification", torch.float32), Clock()
    monkeypatch.setattr(ledger, "time", clock)

    def windows() -> Iterator[int]:
        for number in range(3):
            clock.now += 2.0  # the time that a window takes to be ready
            yield number

    seen = []
    for number in manager.ledger.waiting(windows()):
        seen.append(number)
        clock.now += 5.0  # the step
    assert seen == [0, 1, 2]
    assert manager.state.since_log.waited == manager.state.this_epoch.waited == 6.0


@pytest.mark.parametrize(("waited", "is_told"), [(2.0, True), (0.5, False)])
def test_the_log_tells_a_wait_that_costs(waited: float, is_told: bool) -> None:
    line = Tally(loss_sum=1.0, items=1, seconds=10.0, waited=waited).line(1e-3, left_s=0, memory_bytes=0)
    assert ("데이터 대기 20%" in line) == is_told
    assert ("데이터 대기" in line) == is_told
