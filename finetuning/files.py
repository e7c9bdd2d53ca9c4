"""Writing to a disk: what fails is told with what to do about it, nothing half-made is left, the umask holds."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from exceptions import ResourceError

_CHECK_DISK = "디스크의 남은 공간과 쓰기 권한을 확인하세요."
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_REASONS = {
    errno.ENOSPC: "디스크가 가득 찼습니다.",
    errno.EDQUOT: "디스크 할당량을 다 썼습니다.",
    errno.EROFS: "읽기 전용 디스크입니다.",
    errno.EACCES: "쓰기 권한이 없습니다.",
    errno.EPERM: "쓰기 권한이 없습니다.",
    errno.ENOENT: "폴더가 없습니다.",
    errno.ENOTDIR: "폴더여야 할 자리에 파일이 있습니다.",
    errno.EISDIR: "파일이어야 할 자리에 폴더가 있습니다.",
}


@contextmanager
def writing(what: str, where: Path | str, remedy: str = _CHECK_DISK, partial: Path | None = None) -> Iterator[None]:
    """Turns a disk's failure into a ResourceError that begins with `what`; whatever fails, `partial` is removed."""
    try:
        yield
    except BaseException as error:
        if partial is not None:
            discard(partial)
        reason = disk_reason(error)
        if reason is None:
            raise
        raise ResourceError(f"{what}: {reason}", where=str(where), remedy=remedy) from error


def disk_reason(error: BaseException) -> str | None:
    """Why the disk could not be written, in Korean where that is known; None where it was not the disk."""
    if isinstance(error, OSError):
        return _REASONS.get(error.errno or 0, str(error.strerror or error))
    found = _OS_ERROR.search(str(error)) if isinstance(error, SafetensorError) else None  # it is no OSError
    return _REASONS.get(int(found[1]), os.strerror(int(found[1]))) if found else None


def full_or_read_only(error: BaseException | None) -> str | None:
    """Why a library could not write, where the cause of its error is a disk that is full or read-only."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            return disk_reason(error)
        error = error.__cause__ or error.__context__
    return None


def discard(path: Path) -> None:
    """Removes a file or a folder, as far as that can be done."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


def discard_leftovers(paths: Iterable[Path], idle_s: float = 0.0) -> None:
    """Removes those, named `...-<process>`, that a process that is gone left half-made and nobody touched for so long.

    Where other machines or containers write to the same folder, their processes cannot be seen: give them time.
    """
    import psutil

    for path in paths:
        owner = path.name.rpartition("-")[2]
        is_gone = owner.isdigit() and (int(owner) == os.getpid() or not psutil.pid_exists(int(owner)))
        with suppress(OSError):
            if is_gone and time.time() - path.lstat().st_mtime >= idle_s:
                discard(path)


def give_usual_mode(paths: Iterable[Path]) -> None:
    """Gives files the permissions that new files have: safetensors makes its own readable by their owner alone."""
    mask = os.umask(0o077)
    os.umask(mask)
    for path in paths:
        path.chmod(0o666 & ~mask)


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file so that it is there whole or not at all; ResourceError where the disk does not let it."""
    partial = path.with_name(f".{path.name}.partial")
    with writing("파일을 쓰지 못했습니다", path, partial=partial):
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON for people too: indented, Hangul as it is, null where a number is none."""
    write_atomically(path, json.dumps(_finite(value), ensure_ascii=False, indent=2) + "\n")


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
