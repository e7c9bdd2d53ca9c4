"""Zip archives of data files, unpacked once into a folder of the data's cache."""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from exceptions import DataError
from finetuning.data.folders import HIDDEN
from finetuning.data.formats.registry import is_supported
from finetuning.files import content_key, discard, discard_leftovers, move, writing

SUFFIX = ".zip"
_IN_UTF8, _ENCRYPTED = 0x800, 0x1  # bits of a member's flags
_NOT_IN_NAMES = re.compile(r'[<>:"|?*\x00-\x1f]')  # Windows allows none of them
_IDLE_S = 86_400.0
_REMEDY = "남은 공간과 쓰기 권한을 확인하거나, zip을 직접 풀어 그 폴더를 지정하세요."


@dataclass(frozen=True)
class Member:
    """A data file in an archive.

    Attributes:
        parts: Names of the folders that it is in, and its own.
        info: Where it is in the archive.
    """

    parts: tuple[str, ...]
    info: zipfile.ZipInfo


def is_archive(path: Path) -> bool:
    """Return whether a path is named as a zip archive."""
    return path.suffix.casefold() == SUFFIX


def members_of(path: Path) -> list[Member]:
    """List the files of an archive that can be read as data, by their names.

    Args:
        path: The archive.

    Returns:
        The files, without those that a system hides.

    Raises:
        DataError: The file is no whole zip archive.
    """
    with _opened(path) as archive:
        found = [Member(_parts_of(info), info) for info in archive.infolist() if not info.is_dir()]
    return sorted((one for one in found if _is_data(one.parts)), key=lambda one: one.parts)


def unpacked(path: Path, members: Sequence[Member], cache: Path) -> list[Path]:
    """Unpack files of an archive into a folder that is named by their content, unless they are there.

    Args:
        path: The archive.
        members: Some of its files.
        cache: The folder of the data's cache.

    Returns:
        The unpacked files, in the order of `members`.

    Raises:
        DataError: The archive is damaged, or needs a password.
        ResourceError: The disk is full or cannot be written.
    """
    if any(one.info.flag_bits & _ENCRYPTED for one in members):
        raise DataError(
            "암호가 걸린 zip은 읽을 수 없습니다.", where=str(path), remedy="압축을 풀고 그 폴더를 지정하세요."
        )
    contents = json.dumps([(one.parts, one.info.CRC, one.info.file_size) for one in members])
    folder = cache / "unpacked" / f"{path.stem[:40].strip()}-{content_key(contents)}"
    if not folder.is_dir():
        partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
        with writing("zip을 풀지 못했습니다", f"{path} → {folder}", _REMEDY, partial):
            partial.mkdir(parents=True, exist_ok=True)
            discard_leftovers(folder.parent.glob("*.partial-*"), idle_s=_IDLE_S)
            _unpack(path, members, partial)
            try:
                move(partial, folder)
            except OSError:  # another process unpacked the same files
                if not folder.is_dir():
                    raise
                discard(partial)
    return [folder.joinpath(*one.parts) for one in members]


def _unpack(path: Path, members: Iterable[Member], folder: Path) -> None:
    with _opened(path) as archive:
        for one in members:
            target = folder.joinpath(*one.parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(one.info) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DataError(
            f"{SUFFIX} 파일이 깨졌거나 zip이 아닙니다.",
            where=str(path),
            remedy="다시 내려받거나, 압축을 풀고 그 폴더를 지정하세요.",
        ) from error


def _parts_of(info: zipfile.ZipInfo) -> tuple[str, ...]:
    """Return the names in a member's path. Those of Korean Windows are CP949, which the format cannot say."""
    name = info.filename
    if not info.flag_bits & _IN_UTF8:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode("cp949")
    named = (part for part in name.replace("\\", "/").split("/") if part not in ("", ".", ".."))
    return tuple(_NOT_IN_NAMES.sub("_", part).strip(" ") or "_" for part in named)


def _is_data(parts: Sequence[str]) -> bool:
    return bool(parts) and is_supported(Path(parts[-1])) and not any(part.startswith(HIDDEN) for part in parts)
