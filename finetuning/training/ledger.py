"""The ledger of a run: the results of its steps, read from the device only when they are needed."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from typing import TypeVar

from exceptions import ModelError
from finetuning.data.examples import Examples
from finetuning.device.oom import MAY_BE_OUT_OF_MEMORY, is_out_of_memory
from finetuning.inference.evaluator import Evaluator
from finetuning.reporting.recorder import Recorder
from finetuning.reporting.throughput import Tally
from finetuning.training.results import StepResult, sums_and_norms
from finetuning.training.state import TrainingState
from finetuning.types import RandomKey
from finetuning.windows.objectives.registry import objective_of
from finetuning.windows.order import Window

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_BAD_STEPS_IN_A_ROW = 5
_NAMED_ROWS = 8


class StepLedger:
    """Counts steps into a run's state.

    Args:
        state: The run's state; its tallies and its count of bad steps are updated.
        evaluator: Finds the rows whose loss is not finite.
        examples: The training split.
        seed: Seed of random choices in batches.
        recorder: Records what is logged.
    """

    def __init__(
        self, state: TrainingState, evaluator: Evaluator, examples: Examples, seed: int, recorder: Recorder
    ) -> None:
        self.state, self.evaluator, self.examples, self.seed = state, evaluator, examples, seed
        self.recorder, self.measures = recorder, objective_of(evaluator.task).measures
        self._unread: list[tuple[int, Window, StepResult]] = []
        self._since = time.perf_counter()

    def start_clock(self) -> None:
        """Start timing the next step now, so that evaluating and saving do not count."""
        self._since = time.perf_counter()

    def elapsed(self) -> float:
        """Return the seconds since the clock was started."""
        return time.perf_counter() - self._since

    def count(self, result: StepResult, window: Window, seconds: float) -> None:
        """Count a step that was handed to the device, without waiting for it."""
        self._unread.append((self.state.step, window, result))
        self.state.uncompiled += result.uncompiled
        for tally in (self.state.since_log, self.state.this_epoch):
            tally.add_work(len(window.indices), result.tokens, result.padded_tokens, seconds)
            tally.uncompiled += result.uncompiled

    def waiting(self, ready: Iterator[_T]) -> Iterator[_T]:
        """Yield the same items, and count the time until each was ready."""
        end = object()
        while True:
            since = time.perf_counter()
            item = next(ready, end)
            waited = time.perf_counter() - since
            if item is end:
                return
            for tally in (self.state.since_log, self.state.this_epoch):
                tally.waited += waited
            yield item  # type: ignore[misc]

    def read(self) -> float:
        """Read the losses and norms of the steps since the last call. The host waits for the device here.

        Returns:
            The last step's gradient norm; NaN if there was no step.

        Raises:
            ModelError: Several steps in a row were not finite.
        """
        unread, norm, since = self._unread, math.nan, time.perf_counter()
        self._unread = []
        values = sums_and_norms([result for _, _, result in unread])
        waited = time.perf_counter() - since  # the time of the steps themselves, which were only enqueued
        tallies: tuple[Tally, ...] = (self.state.since_log, self.state.this_epoch)
        for tally in tallies:
            tally.seconds += waited
        for (step, window, result), ((loss_sum, *measured), norm) in zip(unread, values, strict=True):
            is_good = math.isfinite(loss_sum) and math.isfinite(norm)
            for tally in tallies:
                if is_good:
                    tally.add_loss(loss_sum, result.items, dict(zip(self.measures, measured, strict=True)))
                else:
                    tally.skipped += 1
            if is_good:
                self.state.bad_steps = 0
            elif not result.overflowed:
                self._report_bad_window(step, loss_sum, window)
        return norm

    def log(self, lr: float, total_steps: int) -> None:
        """Log and record the steps since the last log line, and begin the next stretch.

        Args:
            lr: Learning rate of the last step.
            total_steps: Steps of the whole run.
        """
        grad_norm, tally, state = self.read(), self.state.since_log, self.state
        memory_bytes = self.evaluator.memory.used()
        left_s = (total_steps - state.step) * state.this_epoch.seconds / max(state.window, 1)
        where = f"epoch {state.epoch + 1} 스텝 {state.step:,}/{total_steps:,}"
        _log.info("%s: %s", where, tally.line(lr, left_s, memory_bytes))
        _log.debug("%s: %s", where, tally.details(grad_norm))
        self.recorder.record(
            self.state.step, self.state.epoch + 1,
            kind="train", loss=tally.loss, lr=lr, grad_norm=grad_norm, skipped=tally.skipped,
            examples_per_s=round(tally.examples_per_s, 2), tokens_per_s=round(tally.tokens_per_s, 1),
            padding=round(tally.padding, 4), memory_bytes=memory_bytes, **tally.means,
            **({"uncompiled": tally.uncompiled} if tally.uncompiled else {}),
        )  # fmt: skip
        self.state.since_log = Tally()

    def _report_bad_window(self, step: int, loss_sum: float, window: Window) -> None:
        """Log that a step was skipped, and which rows caused it; stop the run after several consecutive ones."""
        self.state.bad_steps += 1
        what = "손실" if not math.isfinite(loss_sum) else "기울기"
        indices = window.indices.tolist()
        try:
            key = RandomKey(self.seed, window.epoch)
            rows = self.evaluator.without_finite_loss(self.examples, indices, key) or indices
        except MAY_BE_OUT_OF_MEMORY as error:
            if not is_out_of_memory(error):
                raise
            rows = indices  # no memory to look at each row: the run is about to be saved, perhaps for that reason
        named = [self.examples.row_shown(index) for index in rows[:_NAMED_ROWS]]
        more = f" 외 {len(rows) - _NAMED_ROWS}개" if len(rows) > _NAMED_ROWS else ""
        shown = ", ".join(named) + more
        _log.warning(
            "스텝 %s: %s에 NaN 또는 Inf가 있어 이 스텝을 건너뜁니다. 학습 데이터의 행: %s",
            f"{step:,}", what, shown,
        )  # fmt: skip
        if self.state.bad_steps >= _BAD_STEPS_IN_A_ROW:
            raise ModelError(
                f"{_BAD_STEPS_IN_A_ROW}스텝 연속으로 NaN 또는 Inf가 나와 학습을 멈춥니다.",
                where=f"epoch {window.epoch + 1}, 스텝 {step:,}, 학습 데이터의 행 {shown}",
                remedy="training.learning_rate를 낮추거나(예: 10분의 1) training.warmup_steps를 늘리세요. "
                "그래도 같으면 memory.mixed_precision을 false로 하고 위 행의 내용을 확인하세요.",
            )
