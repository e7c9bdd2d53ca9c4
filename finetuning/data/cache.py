"""The cache of prepared rows and examples: files named by a hash of their sources and settings."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from finetuning.config.schema import DataSettings, Settings, cache_dependencies
from finetuning.data.archives import FOLDER_NAME, UNPACKED
from finetuning.files import discard, discard_leftovers, mark_as_used, move, writing

_log = logging.getLogger(__name__)

FORMAT = "10"  # part of every key: change it whenever the data room's cleaning or encoding changes what it makes
_OURS = re.compile(
    r"(?:rows-[0-9a-f]{32}\.(?:arrow|json)|examples-[0-9a-f]{32}\.arrow|(?:vocabulary|references|suite)-[0-9a-f]{32}\.json)"
)
PREPARED = "prepared"  # the folder of the data's cache that has them
_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"  # Arrow's IPC format
_DAY_S = 86_400.0
_GB = 1e9
_REMEDY = "남은 공간과 쓰기 권한을 확인하거나 data.dataset_cache_dir로 다른 폴더를 고르세요."


def settings_key(settings: Settings, stage: Literal["rows", "examples"]) -> str:
    """Return the settings that a stage of the cache depends on as JSON, part of its keys."""
    return json.dumps(cache_dependencies(settings, stage), ensure_ascii=False)


def code_key(part: object) -> str:
    """Return a hash of the code of a task's part, so that rows made by other code are not taken for its own.

    Args:
        part: The task's reader or encoder; the files of its class and of the classes that it inherits from count.

    Returns:
        32 hexadecimal digits.
    """
    modules = [sys.modules[cls.__module__] for cls in type(part).__mro__ if cls.__module__.startswith("finetuning.")]
    digest = hashlib.sha256()
    for module in modules:
        if module.__file__ is not None:
            digest.update(Path(module.__file__).read_bytes())
    return digest.hexdigest()[:32]


@dataclass(frozen=True)
class _File:
    path: Path
    size: int
    used: float


@dataclass(frozen=True)
class Cache:
    """A folder of prepared files, and the one beside it into which archives are unpacked.

    A file's last use is its access time, set here, or its modification time, whichever is later. That of an unpacked
    archive is its folder's modification time, since whoever looks into a folder changes the access time.

    Attributes:
        folder: Where the prepared files are.
        max_gb: Largest total size in units of 10⁹ bytes, None for no limit.
        max_days: Days after the last use that a file is kept, None for no limit.
    """

    folder: Path
    max_gb: float | None
    max_days: float | None

    @classmethod
    def of(cls, data: DataSettings) -> Self:
        """Open the cache that the settings name."""
        return cls(Path(data.dataset_cache_dir).expanduser() / PREPARED, data.cache_max_gb, data.cache_max_days)

    def path(self, kind: str, key: str, suffix: str = ".arrow") -> Path:
        """Return the path of a file: its kind, one of those in `_OURS`, and a `content_key`."""
        return self.folder / f"{kind}-{key}{suffix}"

    def has(self, *paths: Path) -> bool:
        """Return whether all of these files exist and are whole; if so, record that they are used now."""
        if not all(path.exists() for path in paths):
            return False
        broken = [path.name for path in paths if not _is_whole(path)]
        if broken:  # a full disk, a copy that was cut off, a power failure
            _log.warning("데이터 캐시의 파일이 깨져 다시 만듭니다: %s (%s)", ", ".join(broken), self.folder)
            return False
        for path in paths:
            mark_as_used(path)
        return True

    @contextmanager
    def write(self, path: Path) -> Iterator[Path]:
        """Give a temporary path to write to, and rename it to `path` at the end of the block.

        Args:
            path: A path in the folder, which is created.

        Yields:
            The temporary path. It is removed when the block fails.

        Raises:
            ResourceError: The disk is full or cannot be written.
        """
        partial = path.with_suffix(f".partial-{os.getpid()}")
        with writing("데이터 캐시에 쓰지 못했습니다", f"data.dataset_cache_dir: {self.folder}", _REMEDY, partial):
            self.folder.mkdir(parents=True, exist_ok=True)
            discard_leftovers(self.folder.glob("*.partial-*"), idle_s=_DAY_S)
            yield partial
            try:
                move(partial, path)
            except PermissionError:  # Windows: another process made the same file, and reads it
                if not _is_whole(path):
                    raise
                discard(partial)

    def prune(self) -> None:
        """Remove what is unused for `max_days`, then the least recently used beyond `max_gb`; log one line.

        What was used within the last day stays, since a running process may be reading it. So does every file that is
        not named as this program names its own.
        """
        files = sorted((*self._files(), *self._unpacked()), key=lambda file: file.used)
        now = time.time()
        idle = [file for file in files if now - file.used > _DAY_S]
        too_old = [file for file in idle if self.max_days is not None and now - file.used > self.max_days * _DAY_S]
        left, too_many = sum(file.size for file in files) - sum(file.size for file in too_old), []
        for file in idle[len(too_old) :]:
            if self.max_gb is None or left <= self.max_gb * _GB:
                break
            too_many.append(file)
            left -= file.size
        removed = [file for file in (*too_old, *too_many) if _remove(file.path)]
        if removed:
            self._report(removed, [file for file in removed if file in too_old])

    def _files(self) -> Iterator[_File]:
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            for path in self.folder.iterdir():
                if not _OURS.fullmatch(path.name):
                    continue
                with suppress(OSError):  # another process removed it
                    found = path.lstat()
                    if stat.S_ISREG(found.st_mode):
                        yield _File(path, found.st_size, max(found.st_atime, found.st_mtime))

    def _unpacked(self) -> Iterator[_File]:
        """Yield the folders of unpacked archives, each as one."""
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            for path in self.folder.with_name(UNPACKED).iterdir():
                with suppress(OSError):
                    found = path.lstat()
                    if FOLDER_NAME.fullmatch(path.name) and stat.S_ISDIR(found.st_mode):
                        inside = (one.lstat() for one in path.rglob("*"))
                        size = sum(one.st_size for one in inside if stat.S_ISREG(one.st_mode))
                        yield _File(path, size, found.st_mtime)

    def _report(self, removed: Sequence[_File], too_old: Sequence[_File]) -> None:
        reasons = []
        if too_old:
            reasons.append(f"{self.max_days:g}일 넘게 쓰지 않은 {len(too_old):,}개(data.cache_max_days)")
        if len(removed) > len(too_old):
            reasons.append(f"{self.max_gb:g}GB를 넘겨 오래된 {len(removed) - len(too_old):,}개(data.cache_max_gb)")
        megabytes = sum(file.size for file in removed) / 1e6
        _log.info(
            "데이터 캐시를 정리했습니다: %s, 모두 %s MB. (%s)", ", ".join(reasons), f"{megabytes:,.1f}", self.folder
        )


def _is_whole(path: Path) -> bool:
    """Return whether an Arrow stream has its end mark, and JSON can be read."""
    try:
        if path.suffix == ".json":
            return isinstance(json.loads(path.read_bytes()), dict)
        with path.open("rb") as file:
            file.seek(-len(_END_OF_STREAM), os.SEEK_END)
            return file.read() == _END_OF_STREAM
    except (OSError, ValueError, RecursionError):
        return False


def _remove(path: Path) -> bool:
    discard(path)
    return not os.path.lexists(path)  # Windows removes nothing that is open
