"""One run at a time in a folder, by a lock that the system releases when the process ends, however it ends."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from exceptions import SettingsError
from finetuning.files import missing_folders, remove_empty, writing

if TYPE_CHECKING:
    from filelock import BaseFileLock

_log = logging.getLogger(__name__)
_NAME = ".lock"
_CANNOT_LOCK = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


@contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Lock a folder for the duration of the block, creating it if needed; remove it again if it stays empty.

    A disk without locks, as some network drives are, is used without one, with a warning.

    Args:
        folder: The output_dir of the run.

    Raises:
        SettingsError: Another process holds the lock.
        ResourceError: The folder cannot be written.
    """
    from filelock import FileLock

    created = missing_folders(folder)
    lock = FileLock(folder / _NAME)
    with writing("output_dir에 쓸 수 없습니다", folder):
        folder.mkdir(parents=True, exist_ok=True)
        _acquire(lock, folder)
    try:
        yield
    finally:
        with suppress(OSError):  # Windows cannot remove an open file
            (folder / _NAME).unlink()  # before the release, or the next process could lock a file about to vanish
        lock.release()
        remove_empty(created)


def _acquire(lock: BaseFileLock, folder: Path) -> None:
    from filelock import Timeout

    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise SettingsError(
            "다른 학습이 지금 이 폴더를 쓰고 있습니다.",
            where=f"model.output_dir: {folder}",
            remedy="그 학습이 끝나기를 기다리거나, --output_dir로 다른 폴더를 고르세요.",
        ) from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _CANNOT_LOCK:
            raise
        _log.warning(
            "이 디스크는 파일 잠금을 지원하지 않아 다른 학습이 같은 폴더를 쓰는지 확인하지 못합니다: %s. "
            "한 폴더에서는 학습을 하나씩만 실행하세요.",
            folder,
        )


def is_locked(folder: Path) -> bool:
    """Return whether another process runs in a folder now. A killed process leaves the file and not the lock."""
    if not (folder / _NAME).exists():
        return False
    from filelock import FileLock, Timeout

    lock = FileLock(folder / _NAME)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except (OSError, NotImplementedError):  # a disk without locks, or one that is not ours
        return False
    lock.release()
    return False
