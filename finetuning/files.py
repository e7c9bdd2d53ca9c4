"""Writing to disk: failures become one Korean error, no file is left half-written, and the umask is respected."""

from __future__ import annotations

import difflib
import errno
import hashlib
import json
import math
import os
import re
import shlex
import shutil
import sys
import time
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PureWindowsPath
from typing import Any

from exceptions import ResourceError

_CHECK_DISK = "디스크의 남은 공간과 쓰기 권한을 확인하세요."
_CHECK_PATH = "경로를 확인하거나 다른 경로를 지정하세요."
_FAULTS_OF_PATHS = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_REASONS = {
    errno.ENOSPC: "디스크가 가득 찼습니다.",
    errno.EDQUOT: "디스크 할당량을 다 썼습니다.",
    errno.EROFS: "읽기 전용 디스크입니다.",
    errno.EACCES: "쓰기 권한이 없습니다.",
    errno.EPERM: "쓰기 권한이 없습니다.",
    errno.EEXIST: "같은 이름의 파일이나 끊어진 링크가 있습니다.",
    errno.ENOENT: "폴더가 없습니다.",
    errno.ENOTDIR: "폴더가 있어야 할 곳에 파일이 있습니다.",
    errno.EISDIR: "파일이 있어야 할 곳에 폴더가 있습니다.",
    errno.ENAMETOOLONG: "경로가 너무 깁니다.",
}
_REASONS_ON_WINDOWS = {
    5: "쓰기 권한이 없거나, 다른 프로그램이 열어 두었습니다.",
    32: "다른 프로그램이 열어 두었습니다.",
    206: "경로가 너무 깁니다. Windows에서는 보통 260자까지 쓸 수 있습니다.",
}
_LONGEST_PATH_ON_WINDOWS = 260  # unless the system was told to allow longer ones
_LONGEST_NAME = 255  # bytes of a file's name, on every usual file system
_DEVICE = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[1-9¹²³])[ .]*(?:[.:].*)?", re.IGNORECASE)
_NOT_ON_WINDOWS = re.compile(r'[<>:"|?*\x00-\x1f]')
_SPECIAL_ON_WINDOWS = re.compile(r"[&|<>^()%!;,'`$@#{}]")
_WAITS_S = (0.05, 0.1, 0.2, 0.4, 0.8)  # for a virus scanner or an index, which open new files for a moment
_HUB_ID = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*/)?[A-Za-z0-9_][A-Za-z0-9_.-]*")
_CANNOT_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


def on_windows() -> bool:
    """Return whether the system is Windows."""
    return sys.platform == "win32"


@contextmanager
def writing(what: str, where: Path | str, remedy: str | None = None, partial: Path | None = None) -> Iterator[None]:
    """Re-raise a disk failure inside the block as ResourceError.

    Args:
        what: How the error's message begins, in Korean.
        where: The path or setting that the error names.
        remedy: What the user can do about it; None for what fits the failure.
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
        is_of_path = isinstance(error, OSError) and error.errno in _FAULTS_OF_PATHS
        usual = _CHECK_PATH if is_of_path else _CHECK_DISK
        raise ResourceError(f"{what}: {reason}", where=str(where), remedy=remedy or usual) from error


def disk_reason(error: BaseException) -> str | None:
    """Return why the disk could not be written, in Korean where known; None for an error of another kind."""
    if isinstance(error, OSError):
        known = _REASONS_ON_WINDOWS.get(_windows_code(error)) or _REASONS.get(error.errno or 0)
        return known or str(error.strerror or error)
    found = _OS_ERROR.search(str(error)) if isinstance(error, Exception) else None  # of safetensors and tokenizers
    return _REASONS.get(int(found[1]), os.strerror(int(found[1]))) if found else None


def _windows_code(error: OSError) -> int:
    """Return Windows' own number of an error, 0 on other systems. A path too long is said to be missing there."""
    code = int(getattr(error, "winerror", None) or 0)
    if on_windows() and error.errno == errno.ENOENT and isinstance(error.filename, str):
        return 206 if len(str(Path(error.filename).absolute())) >= _LONGEST_PATH_ON_WINDOWS else code
    return code


def full_or_read_only(error: BaseException | None) -> str | None:
    """Return the reason, in Korean, where a full or read-only disk is among the causes of a library's error."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            return disk_reason(error)
        error = error.__cause__ or error.__context__
    return None


def move(source: Path, target: Path) -> None:
    """Rename a file or folder; an existing file gives way. Windows refuses that while a program has one of them open.

    Args:
        source: What to rename.
        target: Its new path.

    Raises:
        OSError: It cannot be renamed, on Windows after a second and a half of trying.
    """
    for wait_s in _WAITS_S if on_windows() else ():
        try:
            os.replace(source, target)
            return
        except PermissionError:
            time.sleep(wait_s)
    os.replace(source, target)


def write_atomically(path: Path, text: str) -> None:
    """Write a UTF-8 text file through a rename, so that readers see the old file or the whole new one.

    Args:
        path: The file to write.
        text: Its content.

    Raises:
        ResourceError: The disk is full or cannot be written.
    """
    write_bytes_atomically(path, text.encode())


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """Write a file of bytes through a rename, as `write_atomically` does a text; raises what it raises."""
    partial = path.with_name(f".{path.name}.partial")
    with writing("파일을 쓰지 못했습니다", path, partial=partial):
        partial.write_bytes(content)
        sync_file(partial)  # or a power failure could leave the new name with nothing in it
        move(partial, path)


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
    if on_windows():
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
    if on_windows():
        _check_on_windows(text)
    if not text.startswith("~"):
        return text
    try:
        return str(Path(text).expanduser())
    except RuntimeError:
        if os.path.lexists(text):  # a file whose own name begins with ~
            return f".{os.sep}{text}"
        user = Path(text).parts[0]
        raise ValueError(f"'{user}'의 홈 폴더를 찾을 수 없습니다. 내 홈 폴더는 ~/입니다") from None


def _check_on_windows(text: str) -> None:
    """Raise ValueError for a name that Windows takes for a device or a stream, or changes without a word."""
    path = PureWindowsPath(text)
    for part in path.parts[1 if path.anchor else 0 :]:
        if _DEVICE.fullmatch(part):
            raise ValueError(f"Windows에서 '{part}' 이름은 장치의 것이어서 쓸 수 없습니다")
        if (found := _NOT_ON_WINDOWS.search(part)) is not None:
            raise ValueError(f"Windows에서는 이름에 {found[0]!r} 문자를 쓸 수 없습니다: '{part}'")
        if part not in (".", "..") and part.endswith((".", " ")):
            raise ValueError(f"Windows에서는 이름 끝에 마침표나 빈칸을 쓸 수 없습니다: '{part}'")


def seen_from(folder: Path, path: Path) -> str:
    """Return a path as it is seen from a folder, with slashes on every system, so that both may be moved together.

    Args:
        folder: The folder.
        path: The path.

    Returns:
        The path from the folder; the whole path where Windows has them on different drives.
    """
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return path.absolute().as_posix()


def may_be_hub_id(name: str) -> bool:
    """Return whether a name may be an id of the Hugging Face Hub; Hangul, spaces and deeper paths occur in none."""
    return _HUB_ID.fullmatch(name) is not None


def typed(*words: object) -> str:
    """Return words of a command as they are typed in a shell of this system, so that each stays one word.

    Windows' own shells take single quotes for a part of the name, or do not know them.
    """
    texts = [str(word) for word in words]
    if not on_windows():
        return shlex.join(texts)
    from subprocess import list2cmdline

    return " ".join(
        f'"{word}"' if list2cmdline([word]) == word and _SPECIAL_ON_WINDOWS.search(word) else list2cmdline([word])
        for word in texts
    )


def command_of_this_program(*words: object) -> str:
    """Return a command as it is typed in a shell here, with the interpreter that has the packages."""
    return typed(_python(), sys.argv[0], *words)


def _python() -> str:
    """Return how to call this interpreter from here: `python`, or its path where `python` is another one."""
    found = shutil.which("python")
    if found is not None and os.path.normcase(Path(found).absolute()) == os.path.normcase(sys.executable):
        return "python"
    here, path = Path.cwd(), Path(sys.executable)
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def similar_name(path: Path) -> str:
    """Return a sentence on the most similar file or folder beside a path that does not exist, or ""."""
    try:
        names = {
            unicodedata.normalize("NFC", other.name): other.name
            for other in path.parent.iterdir()
            if other != path and not other.name.startswith("~$")  # Excel's, beside a table that is open
        }
    except OSError:
        return ""
    asked = unicodedata.normalize("NFC", path.name)
    if asked in names:
        return (
            "같아 보이는 이름이 있지만, 한글의 자음과 모음이 나뉜 채로 저장된 이름입니다(macOS에서 만든 파일). "
            "그 파일이나 폴더의 이름을 다시 입력해 바꾸세요. "
        )
    near = difflib.get_close_matches(asked, names, n=1)
    return f"혹시 {path.with_name(names[near[0]])}입니까? " if near else ""


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


def missing_folders(folder: Path) -> list[Path]:
    """Return the folders that making this one would make, the innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove those of the folders in which nothing is."""
    for path in folders:
        with suppress(OSError):  # a folder in use is not empty
            path.rmdir()


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
