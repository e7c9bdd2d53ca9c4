"""Time of a run by the phases of a step, and a trace of a few steps for a profile viewer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import torch

from finetuning.files import writing

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_STEPS_BEFORE, _STEPS_TRACED = 2, 3

Phase = Literal["waiting_for_data", "forward", "backward", "optimizer", "logging"]


@dataclass(frozen=True)
class PhaseTimes:
    """Time of the main process.

    Attributes:
        windows: Number of windows that were timed.
        seconds: Seconds by phase over all of them.
    """

    windows: int
    seconds: Mapping[str, float]


class Profile(Protocol):
    """Interface through which the training loop times its phases."""

    def phase(self, name: Phase) -> AbstractContextManager[None]:
        """Time the block as part of a phase."""

    def waiting(self, ready: Iterator[_T]) -> Iterator[_T]:
        """Yield the same items, timing the wait for each; every item begins a window."""

    def times(self) -> PhaseTimes | None:
        """End the measurement and return its result, or None if nothing was measured."""


class NoProfile:
    """A profile that measures nothing."""

    def phase(self, name: Phase) -> AbstractContextManager[None]:
        return nullcontext()

    def waiting(self, ready: Iterator[_T]) -> Iterator[_T]:
        return ready

    def times(self) -> PhaseTimes | None:
        return None


class WindowProfile:
    """Times every window of this process, and writes output_dir/trace.json of steps 4 to 6.

    Each phase ends by waiting for the GPU, so that its time counts where it was caused; that costs some speed.

    Args:
        wait_for_device: Waits until the device has computed what it was given.
        output_dir: The folder of the run.
    """

    def __init__(self, wait_for_device: Callable[[], None], output_dir: Path) -> None:
        self.wait_for_device, self.path = wait_for_device, output_dir / "trace.json"
        self._seconds: dict[str, float] = {}
        self._windows = 0
        schedule = torch.profiler.schedule(skip_first=_STEPS_BEFORE, wait=0, warmup=1, active=_STEPS_TRACED, repeat=1)
        self._trace = torch.profiler.profile(schedule=schedule, on_trace_ready=self._write)
        self._is_tracing = False

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        since = time.perf_counter()
        with torch.profiler.record_function(name):
            yield
            self.wait_for_device()
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - since

    def waiting(self, ready: Iterator[_T]) -> Iterator[_T]:
        end = object()
        while True:
            self._next_step()
            with self.phase("waiting_for_data"):
                item = next(ready, end)
            if item is end:
                return
            self._windows += 1
            yield item  # type: ignore[misc]

    def times(self) -> PhaseTimes | None:
        self._stop()  # a short run can end within the traced steps
        return PhaseTimes(self._windows, {name: round(value, 3) for name, value in self._seconds.items()})

    def _next_step(self) -> None:
        if self._windows == 0 and not self._is_tracing:
            self._trace.start()
            self._is_tracing = True
        elif self._is_tracing:
            self._trace.step()
            if self._windows > _STEPS_BEFORE + _STEPS_TRACED + 1:
                self._stop()

    def _stop(self) -> None:
        if self._is_tracing:
            self._is_tracing = False
            self._trace.stop()

    def _write(self, trace: torch.profiler.profile) -> None:
        with writing("trace를 쓰지 못했습니다", self.path):
            trace.export_chrome_trace(str(self.path))
        _log.info("torch profiler의 trace를 저장했습니다: %s", self.path)


def profile_of(wanted: bool, wait_for_device: Callable[[], None], output_dir: Path) -> Profile:
    """Create the profile that `logging.profile` asks for; wait_for_device: as of WindowProfile."""
    return WindowProfile(wait_for_device, output_dir) if wanted else NoProfile()
