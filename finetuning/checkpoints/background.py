"""Saving while training goes on: the state is copied out of the model, and a thread writes the copy."""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from exceptions import ResourceError
from finetuning.checkpoints.store import Checkpoint, CheckpointStore, copied, size_in_bytes
from finetuning.device.oom import MAY_BE_OUT_OF_MEMORY, is_out_of_memory
from finetuning.device.usage import available_bytes

_log = logging.getLogger(__name__)
_SHARE = 0.5  # of the memory that is free, for the copy: evaluation and the optimizer want theirs too


class BackgroundSaver:
    """Saves to one store, at most one checkpoint at a time; leaving the `with` block waits for the write under way.

    A disk that fails does not end the run: it is told, and the next save tries again. `finish` is where it counts.
    """

    def __init__(self, store: CheckpointStore) -> None:
        self.store = store
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None
        self._error: BaseException | None = None
        self._told = True
        self._step, self._path = 0, Path()

    def __enter__(self) -> BackgroundSaver:
        self._pool.submit(int).result()  # a thread that is begun without memory may never say so: Python waits for it
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.wait()
        self._pool.shutdown()

    def save(self, checkpoint: Checkpoint) -> None:
        """Waits for the write before this one, copies the state and begins to write the copy.

        Where memory has no room for the copy, it returns only when all is written.
        """
        self.wait()
        self._step, self._error, self._told = checkpoint.progress.step, None, False
        if size_in_bytes(checkpoint) > _SHARE * available_bytes() or not self._begin_to_write_a_copy(checkpoint):
            self._write(checkpoint)
            self.report()

    def _begin_to_write_a_copy(self, checkpoint: Checkpoint) -> bool:
        """Whether there was memory for it: a limit that only allocations know of may leave less than there is."""
        try:
            self._pending = self._pool.submit(self._write, copied(checkpoint))
        except MAY_BE_OUT_OF_MEMORY as error:
            if not is_out_of_memory(error):
                raise
            return False
        return True

    def fail(self, step: int, error: ResourceError) -> None:
        """Takes note of a checkpoint that the disk did not let be made, and says so."""
        self.wait()
        self._step, self._error, self._told = step, error, False
        self.report()

    def report(self) -> None:
        """Says, once, how the last write ended, if it has; raises an error that is not the disk's."""
        if self._told or (self._pending is not None and not self._pending.done()):
            return
        self._pending, self._told = None, True
        if self._error is None:
            _log.info("스텝 %s 체크포인트를 저장했습니다: %s", f"{self._step:,}", self._path)
        elif isinstance(self._error, ResourceError):
            _log.warning(
                "스텝 %s: %s (%s) 이전 체크포인트는 그대로 있습니다. 학습을 계속하고 다음 저장 때 다시 시도합니다.",
                f"{self._step:,}", self._error.what, self._error.where,
            )  # fmt: skip
        else:
            raise self._error

    def wait(self) -> None:
        """Waits for the write under way, and says how it ended."""
        if self._pending is not None:
            self._pending.result()
        self.report()

    def finish(self) -> None:
        """Waits for the write under way; ResourceError where the last checkpoint could not be written."""
        if self._pending is not None:
            self._pending.result()
        if isinstance(self._error, ResourceError):
            self._pending, self._told = None, True
            raise self._error
        self.report()

    def _write(self, checkpoint: Checkpoint) -> None:
        try:
            self._path = self.store.save(checkpoint)
        except BaseException as error:  # of a thread nobody would hear
            self._error = _without_memory(self._step) if is_out_of_memory(error) else error


def _without_memory(step: int) -> ResourceError:
    return ResourceError(
        "메모리가 모자라 체크포인트를 저장하지 못했습니다.",
        where=f"스텝 {step:,}",
        remedy="메모리를 늘린 뒤 --resume으로 이어서 학습하세요. 이전 체크포인트는 그대로 있습니다.",
    )
