"""Writing to disk: failures become one Korean error, no file is left half-written, and the umask is respected."""

from __future__ import annotations

import errno
import hashlib
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
    errno.ENOTDIR: "폴더가 있어야 할 곳에 파일이 있습니다.",
    errno.EISDIR: "파일이 있어야 할 곳에 폴더가 있습니다.",
}
_LONGEST_NAME = 255  # bytes of a file's name, on every usual file system
_RESERVED_ON_WINDOWS = re.compile(r"(?:con|prn|aux|nul|com[1-9]|lpt[1-9])(?:\..*)?", re.IGNORECASE)
_HUB_ID = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*/)?[A-Za-z0-9_][A-Za-z0-9_.-]*")
_CANNOT_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


@contextmanager
def writing(what: str, where: Path | str, remedy: str = _CHECK_DISK, partial: Path | None = None) -> Iterator[None]:
    """Re-raise a disk failure inside the block as ResourceError.

    Args:
        what: How the error's message begins, in Korean.
        where: The path or setting that the error names.
        remedy: What the user can do about it.
        partial: A file or folder to remove after any error.

    Raises:
        ResourceError: The disk is full or cannot be written.
        BaseException: Any other error of the block, unchanged.
    """
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
    """Return why the disk could not be written, in Korean where known; None for an error of another kind."""
    if isinstance(error, OSError):
        return _REASONS.get(error.errno or 0, str(error.strerror or error))
    found = _OS_ERROR.search(str(error)) if isinstance(error, Exception) else None  # of safetensors and tokenizers
    return _REASONS.get(int(found[1]), os.strerror(int(found[1]))) if found else None


def full_or_read_only(error: BaseException | None) -> str | None:
    """Return the reason, in Korean, where a full or read-only disk is among the causes of a library's error."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            return disk_reason(error)
        error = error.__cause__ or error.__context__
    return None


def write_atomically(path: Path, text: str) -> None:
    """Write a UTF-8 text file through a rename, so that readers see the old file or the whole new one.

    Args:
        path: The file to write.
        text: Its content.

    Raises:
        ResourceError: The disk is full or cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    with writing("파일을 쓰지 못했습니다", path, partial=partial):
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON with readable Hangul and null for NaN and Inf.

    Args:
        path: The file to write.
        value: A JSON value.

    Raises:
        ResourceError: The disk is full or cannot be written.
    """
    write_atomically(path, json.dumps(without_nan(value), ensure_ascii=False, indent=2) + "\n")


def without_nan(value: Any) -> Any:
    """Replace NaN and Inf in a JSON value with None, since JSON has neither."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sync_file(path: Path) -> None:
    """Flush a file to the disk, so that it survives a power failure."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries (new files, renames) to the disk; Windows has no such call and needs none.

    Args:
        folder: The folder.

    Raises:
        OSError: The disk fails. Drives that cannot sync a folder, as some network and cloud drives, are skipped.
    """
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(descriptor)


def user_path(text: str) -> str:
    """Check a path that the user wrote and put the home folder in place of `~`.

    Args:
        text: A path, or a Hub id, which is returned unchanged.

    Returns:
        The path.

    Raises:
        ValueError: No folder can have the name; the message is Korean.
    """
    for part in Path(text).parts:
        if len(os.fsencode(part)) > _LONGEST_NAME:
            raise ValueError(
                f"이름이 너무 긴 경로입니다(한 이름에 {_LONGEST_NAME}바이트까지, 한글은 한 글자에 3바이트)"
            )
        if os.name == "nt" and _RESERVED_ON_WINDOWS.fullmatch(part):
            raise ValueError(f"Windows에서 '{part}' 이름은 장치의 것이어서 쓸 수 없습니다")
    if not text.startswith("~"):
        return text
    try:
        return str(Path(text).expanduser())
    except RuntimeError:
        if os.path.lexists(text):  # a file whose own name begins with ~
            return f".{os.sep}{text}"
        user = Path(text).parts[0]
        raise ValueError(f"'{user}'의 홈 폴더를 찾을 수 없습니다. 내 홈 폴더는 ~/입니다") from None


def may_be_hub_id(name: str) -> bool:
    """Return whether a name may be an id of the Hugging Face Hub; Hangul, spaces and deeper paths occur in none."""
    return _HUB_ID.fullmatch(name) is not None


def discard(path: Path) -> None:
    """Remove a file or a folder; errors are ignored."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(OSError):
        path.unlink(missing_ok=True)


def discard_leftovers(paths: Iterable[Path], idle_s: float = 0.0) -> None:
    """Remove files that a dead process left half-written.

    Args:
        paths: Files and folders whose names end in `-<process id>`.
        idle_s: Seconds a path must be untouched first. Where other machines or containers write to the same folder,
            their processes are not visible here, so give them time.
    """
    import psutil

    for path in paths:
        owner = path.name.rpartition("-")[2]
        is_dead = owner.isdigit() and (int(owner) == os.getpid() or not psutil.pid_exists(int(owner)))
        with suppress(OSError):
            if is_dead and time.time() - path.lstat().st_mtime >= idle_s:
                discard(path)


def give_usual_mode(paths: Iterable[Path]) -> None:
    """Give files the permissions of the umask: safetensors makes its files readable by their owner alone."""
    mask = os.umask(0o077)
    os.umask(mask)
    for path in paths:
        path.chmod(0o666 & ~mask)


def content_key(*parts: str) -> str:
    """Return a short hash of the parts, used as a key."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def mark_as_used(path: Path) -> None:
    """Set a file's access time to now and keep its modification time, on disks too that record no access.

    Does nothing if that is not allowed: another user owns the file, or the disk is read-only.
    """
    with suppress(OSError):
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
