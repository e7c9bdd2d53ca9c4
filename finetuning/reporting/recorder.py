"""The one object that the training loop records through: metrics.jsonl always, and the trackers that were asked for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from exceptions import SettingsError, first_line_of
from finetuning.config.schema import Settings
from finetuning.files import without_nan
from finetuning.reporting.metrics_file import MetricsFile
from finetuning.reporting.samples import Sample, write_samples
from finetuning.reporting.sent_records import TRACKERS_FILE
from finetuning.reporting.trackers import TrackedRun, Tracker, build_trackers, flattened

_log = logging.getLogger(__name__)


class Recorder:
    """Records of one run, written by the main process alone; trackers run inside the `with` block.

    A tracker that fails during training is dropped with a warning: metrics.jsonl has every record.

    Args:
        settings: The run's settings.
        output_dir: The folder of the run.
        is_main_process: Other processes record nothing.

    Raises:
        SettingsError: `logging.trackers` names a tracker that is unknown or not installed.
    """

    def __init__(self, settings: Settings, output_dir: Path, is_main_process: bool) -> None:
        self._settings, self._output_dir, self._is_main_process = settings, output_dir, is_main_process
        self._file = MetricsFile(output_dir)
        self._resumed_step = 0
        trackers = build_trackers(settings.logging.trackers)
        self._waiting: list[Tracker] = trackers if is_main_process else []
        self._started: list[Tracker] = []

    def __enter__(self) -> Recorder:
        """Start the trackers.

        Returns:
            The recorder itself.

        Raises:
            SettingsError: A tracker does not start, for example because of a missing login.
        """
        flat = flattened(self._settings.model_dump(mode="json"))
        named = self._settings.logging.run_name or self._output_dir.resolve().name
        tags = tuple(self._settings.logging.tags)
        run = TrackedRun(named, self._output_dir, self._resumed_step, flat, tags)
        for tracker in self._waiting:
            try:
                tracker.start(run)
            except Exception as error:  # each tracker has errors of its own
                self._finish()
                raise SettingsError(
                    f"{tracker.name} tracker를 시작하지 못했습니다: {first_line_of(error)}",
                    where="logging.trackers",
                    remedy=f"로그인과 네트워크를 확인하거나, logging.trackers에서 {tracker.name} 항목을 빼세요. "
                    f"기록하던 run을 지웠다면, {self._output_dir / TRACKERS_FILE} 파일을 삭제하고 "
                    "다시 실행하세요. 새 run에 기록합니다.",
                ) from error
            self._started.append(tracker)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._finish()

    def record(self, step: int, epoch: int, **fields: Any) -> None:
        """Append one record.

        Args:
            step: Optimizer steps taken so far.
            epoch: The current epoch, from 1.
            **fields: `kind` (`train` or `eval`) and numbers by name; NaN and Inf are recorded as null.
        """
        if not self._is_main_process:
            return
        record = without_nan({"step": step, "epoch": epoch, **fields})
        self._file.add(record)
        for tracker in list(self._started):
            try:
                tracker.log(record)
            except Exception as error:  # the network, or a quota: no reason to lose a run
                self._started.remove(tracker)
                _log.warning(
                    "%s tracker에 기록하지 못해 더는 기록하지 않습니다. (%s) 모든 기록은 metrics.jsonl에 있습니다.",
                    tracker.name, first_line_of(error),
                )  # fmt: skip
                _finish_quietly(tracker)

    def show(self, step: int, samples: Sequence[Sample]) -> None:
        """Write what an evaluation predicted for a few rows, in place of what the one before it did."""
        if self._is_main_process and self._settings.logging.report:  # it holds texts of the data
            write_samples(self._output_dir, step, samples)

    def size(self) -> int:
        """Flush metrics.jsonl to the disk.

        Returns:
            Its size in bytes, for the checkpoint.

        Raises:
            ResourceError: The records cannot be written.
        """
        return self._file.size()

    def written(self) -> int:
        """Return the bytes of metrics.jsonl that are written, whether or not all records are."""
        return self._file.written()

    def cut(self, size: int, step: int) -> None:
        """Drop what was recorded after a checkpoint, before a resumed run records again.

        Args:
            size: Bytes of metrics.jsonl at the checkpoint.
            step: The checkpoint's step.

        Raises:
            ResourceError: The file cannot be written.
        """
        self._resumed_step = step
        if self._is_main_process:
            self._file.cut(size)

    def _finish(self) -> None:
        for tracker in self._started:
            _finish_quietly(tracker)
        self._started.clear()


def _finish_quietly(tracker: Tracker) -> None:
    try:
        tracker.finish()
    except Exception as error:
        _log.warning("%s tracker를 마무리하지 못했습니다: %s", tracker.name, first_line_of(error))
