"""One run at a time in a folder, by a lock that the system releases when the process ends, however it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from exceptions import SettingsError
from finetuning.files import writing

_NAME = ".lock"


@contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Lock a folder for the duration of the block, creating it if needed; remove it again if it stays empty.

    Args:
        folder: The output_dir of the run.

    Raises:
        SettingsError: Another process holds the lock.
        ResourceError: The folder cannot be written.
    """
    from filelock import FileLock, Timeout

    created = [path for path in (folder, *folder.parents) if not path.exists()]
    lock = FileLock(folder / _NAME)
    with writing("output_dir에 쓸 수 없습니다", folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise SettingsError(
                "다른 학습이 지금 이 폴더를 쓰고 있습니다.",
                where=f"model.output_dir: {folder}",
                remedy="그 학습이 끝나기를 기다리거나, --output_dir로 다른 폴더를 고르세요.",
            ) from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows cannot remove an open file
            (folder / _NAME).unlink()  # before the release, or the next process could lock a file about to vanish
        lock.release()
        for path in created:
            with suppress(OSError):  # a folder in use is not empty
                path.rmdir()
