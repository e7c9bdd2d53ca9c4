"""Where a run's time goes, by the phases of a window, and a trace of a few steps for a profile viewer."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import torch

from finetuning.files import writing

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_STEPS_BEFORE, _STEPS_TRACED = 2, 3

Phase = Literal["waiting_for_data", "forward", "backward", "optimizer", "logging"]


class Profile(Protocol):
    """What the loop tells of itself."""

    def phase(self, name: Phase) -> AbstractContextManager[None]:
        """Around what belongs to a phase."""

    def waiting(self, ready: Iterator[_T]) -> Iterator[_T]:
        """The same items, the time until each comes counted; a window begins with each."""

    def facts(self) -> dict[str, Any]:
        """What was measured, for summary.json."""


class NoProfile:
    """Measures nothing and costs nothing."""

    def phase(self, name: Phase) -> AbstractContextManager[None]:
        return nullcontext()

    def waiting(self, ready: Iterator[_T]) -> Iterator[_T]:
        return ready

    def facts(self) -> dict[str, Any]:
        return {}


class WindowProfile:
    """Seconds by phase over all windows of this process, and output_dir/trace.json of steps 4 to 6.

    A GPU is waited for at the end of each phase, so that its time counts where it was asked for; that costs some speed.
    """

    def __init__(self, device: torch.device, output_dir: Path) -> None:
        self.device, self.path = device, output_dir / "trace.json"
        self.seconds: dict[str, float] = {}
        self.windows = 0
        schedule = torch.profiler.schedule(skip_first=_STEPS_BEFORE, wait=0, warmup=1, active=_STEPS_TRACED, repeat=1)
        self._trace = torch.profiler.profile(schedule=schedule, on_trace_ready=self._write)
        self._is_tracing = False

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        since = time.perf_counter()
        with torch.profiler.record_function(name):
            yield
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - since

    def waiting(self, ready: Iterator[_T]) -> Iterator[_T]:
        end = object()
        while True:
            self._next_step()
            with self.phase("waiting_for_data"):
                item = next(ready, end)
            if item is end:
                return
            self.windows += 1
            yield item  # type: ignore[misc]

    def facts(self) -> dict[str, Any]:
        self._stop()  # a run of few steps ends within the trace
        return {"profile": {"windows": self.windows, "seconds": {k: round(v, 3) for k, v in self.seconds.items()}}}

    def _next_step(self) -> None:
        if self.windows == 0 and not self._is_tracing:
            self._trace.start()
            self._is_tracing = True
        elif self._is_tracing:
            self._trace.step()
            if self.windows > _STEPS_BEFORE + _STEPS_TRACED + 1:
                self._stop()

    def _stop(self) -> None:
        if self._is_tracing:
            self._is_tracing = False
            self._trace.stop()

    def _write(self, trace: torch.profiler.profile) -> None:
        with writing("trace를 쓰지 못했습니다", self.path):
            trace.export_chrome_trace(str(self.path))
        _log.info("torch profiler의 trace를 저장했습니다: %s", self.path)


def profile_of(wanted: bool, device: torch.device, output_dir: Path) -> Profile:
    """The profile that `logging.profile` asks for."""
    return WindowProfile(device, output_dir) if wanted else NoProfile()
