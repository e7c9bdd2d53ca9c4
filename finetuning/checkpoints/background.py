"""Saving while training goes on: the state is copied to CPU memory, and a thread writes the copy."""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from exceptions import ResourceError
from finetuning.checkpoints.store import CheckpointStore
from finetuning.checkpoints.tensors import copied, size_in_bytes
from finetuning.device.oom import MAY_BE_OUT_OF_MEMORY, is_out_of_memory
from finetuning.device.usage import available_bytes
from finetuning.types import Checkpoint

_log = logging.getLogger(__name__)
_SHARE = 0.5  # of free memory for the copy; evaluation and the optimizer need the rest


class BackgroundSaver:
    """Saves to one store, one checkpoint at a time; leaving the `with` block waits for the write in progress.

    A failing disk does not end the run: it is logged, and the next save tries again. Only `finish` raises it.

    Args:
        store: Where checkpoints are written.
    """

    def __init__(self, store: CheckpointStore) -> None:
        self.store = store
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None
        self._error: BaseException | None = None
        self._is_reported = True
        self._step, self._path = 0, Path()

    def __enter__(self) -> BackgroundSaver:
        # start the thread now: a thread that is started when memory is short can hang the interpreter
        self._pool.submit(int).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.wait()
        except Exception as failed:
            if error is None:
                raise
            _log.warning("스텝 %s 체크포인트를 저장하지 못했습니다: %r", f"{self._step:,}", failed)
        finally:
            self._pool.shutdown()

    def save(self, checkpoint: Checkpoint) -> None:
        """Wait for the previous write, copy the state and start to write the copy.

        Where memory has no room for the copy, the originals are written before this returns.

        Args:
            checkpoint: The state to save; training may change its tensors once this returns.
        """
        self.wait()
        self._step, self._error, self._is_reported = checkpoint.progress.step, None, False
        copy = self._copied(checkpoint)
        if copy is None:
            self._write(checkpoint)
            self.report()
        else:
            self._pending = self._pool.submit(self._write, copy)

    def report(self) -> None:
        """Log the result of the last write once, if it has ended.

        Raises:
            BaseException: The write failed for a reason other than the disk.
        """
        if self._is_reported or (self._pending is not None and not self._pending.done()):
            return
        self._pending, self._is_reported = None, True
        if self._error is None:
            _log.debug("스텝 %s 체크포인트를 저장했습니다: %s", f"{self._step:,}", self._path)
        elif isinstance(self._error, ResourceError):
            _log.warning(
                "스텝 %s: %s (%s) %s학습을 계속하고 다음 저장 때 다시 시도합니다.",
                f"{self._step:,}", self._error.what, self._error.where,
                "이전 체크포인트는 그대로 있습니다. " if self.store.folders() else "",
            )  # fmt: skip
        else:
            raise self._error

    def wait(self) -> None:
        """Wait for the write in progress and report its result."""
        if self._pending is not None:
            self._pending.result()
        self.report()

    def finish(self) -> None:
        """Wait for the write in progress.

        Raises:
            ResourceError: The last checkpoint could not be written.
        """
        if self._pending is not None:
            self._pending.result()
        if isinstance(self._error, ResourceError):
            self._pending, self._is_reported = None, True
            raise self._error
        self.report()

    def _copied(self, checkpoint: Checkpoint) -> Checkpoint | None:
        """Return a copy, or None where memory has no room for it."""
        return copied_if_it_fits(checkpoint, size_in_bytes(checkpoint))

    def _write(self, checkpoint: Checkpoint) -> None:
        try:
            self._path = self._saved(checkpoint)
        except BaseException as error:  # nobody would see an error that is raised in the thread
            self._error = self._without_memory() if is_out_of_memory(error) else error

    def _saved(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint and return its folder."""
        return self.store.save(checkpoint)

    def _without_memory(self) -> ResourceError:
        return ResourceError(
            "메모리가 부족해 체크포인트를 저장하지 못했습니다.",
            where=f"스텝 {self._step:,}",
            remedy=self.store.remedy("메모리를 늘린 뒤"),
        )


def copied_if_it_fits(checkpoint: Checkpoint, size: int, sharers: int = 1) -> Checkpoint | None:
    """Copy a checkpoint into CPU memory where enough of it is free.

    Args:
        checkpoint: What to copy.
        size: Bytes of the copy.
        sharers: Processes of this machine that copy as much.

    Returns:
        The copy; None where it does not fit: a limit that only allocations reveal may leave less than is free.
    """
    if size * sharers > _SHARE * available_bytes():
        return None
    try:
        return copied(checkpoint)
    except MAY_BE_OUT_OF_MEMORY as error:
        if not is_out_of_memory(error):
            raise
        return None
