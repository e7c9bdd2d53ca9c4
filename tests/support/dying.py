"""A process that dies at a chosen call to the disk, and a disk that loses what was not flushed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CALLS = frozenset({
    "open", "os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate",
    "os.utime", "shutil.rmtree",
})  # fmt: skip
_DIED = 37


def dies_at(call: int, folder: Path, act: Callable[[], object]) -> bool:
    """Do something in a copy of this process that dies just before a call to the disk below a folder.

    Args:
        call: Number of the call, from 0.
        folder: Calls that name no path below it do not count.
        act: What to do.

    Returns:
        Whether it died; False where there are fewer calls.
    """
    process = os.fork()
    if process == 0:
        _die_later(call, str(folder))
        try:
            act()
        finally:
            os._exit(0)
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status) == _DIED


class Disk:
    """A disk that is asked to flush files, and whose power fails: files that were not flushed are empty then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._flushed: dict[tuple[int, int], int] = {}
        real = os.fsync

        def fsync(descriptor: int) -> None:
            real(descriptor)
            self._flushed[_identity(os.fstat(descriptor))] = os.fstat(descriptor).st_size

        monkeypatch.setattr(os, "fsync", fsync)

    def lose_power(self, folder: Path) -> None:
        """Cut each file below a folder to what was flushed of it."""
        for path in [path for path in folder.rglob("*") if path.is_file()]:
            os.truncate(path, min(self._flushed.get(_identity(path.stat()), 0), path.stat().st_size))


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _die_later(call: int, folder: str) -> None:
    seen = 0

    def look(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event in CALLS and any(isinstance(value, str | os.PathLike) and folder in str(value) for value in arguments):
            if seen == call:
                os._exit(_DIED)
            seen += 1

    sys.addaudithook(look)
