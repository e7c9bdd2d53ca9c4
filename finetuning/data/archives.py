"""Zip archives of data files, unpacked once into a folder of the data's cache."""

from __future__ import annotations

import json
import os
import re
import shutil
import unicodedata
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
UNPACKED = "unpacked"  # the folder of the data's cache that has a folder for each archive
FOLDER_NAME = re.compile(r".*-[0-9a-f]{32}", re.DOTALL)  # of an unpacked archive
_IN_UTF8, _ENCRYPTED = 0x800, 0x1  # bits of a member's flags
_NOT_IN_NAMES = re.compile(r'[<>:"|?*\x00-\x1f]')  # Windows allows none of them
_LONGEST_NAME, _LONGEST_SUFFIX = 255, 16  # bytes
_HARMLESS, _HIGHEST_RATIO = 1 << 30, 200  # unpacked bytes, and of them to packed ones
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
        The files, without those that a system hides. No two have the same parts, whatever the disk takes for one name.

    Raises:
        DataError: The file is no whole zip archive.
    """
    with _opened(path) as archive:
        last = {info.filename: info for info in archive.infolist() if not info.is_dir()}  # a later one replaces it
    found: dict[str, Member] = {}
    for info in last.values():
        parts = _parts_of(info)
        if _is_data(parts):
            if "/".join(parts).casefold() in found:
                parts = (*parts[:-1], _with_hash(parts[-1], info.filename))
            found["/".join(parts).casefold()] = Member(parts, info)
    return sorted(found.values(), key=lambda one: one.parts)


def unpacked(path: Path, members: Sequence[Member], cache: Path) -> list[Path]:
    """Unpack those files of an archive that are not there yet into a folder that is named by their content.

    Args:
        path: The archive.
        members: Some of its files.
        cache: The folder of the data's cache.

    Returns:
        The unpacked files, in the order of `members`.

    Raises:
        DataError: The archive is damaged, needs a password, or is packed far smaller than any data.
        ResourceError: The disk is full or cannot be written.
    """
    _check_size(path, members)
    if any(one.info.flag_bits & _ENCRYPTED for one in members):
        raise DataError(
            "암호가 걸린 zip은 읽을 수 없습니다.", where=str(path), remedy="압축을 풀고 그 폴더를 지정하세요."
        )
    contents = json.dumps([(one.parts, one.info.CRC, one.info.file_size) for one in members])
    folder = cache / UNPACKED / f"{path.stem[:40].strip()}-{content_key(contents)}"
    if missing := [one for one in members if not _is_there(folder, one)]:
        partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
        with writing("zip을 풀지 못했습니다", f"{path} → {folder}", _REMEDY, partial):
            partial.mkdir(parents=True, exist_ok=True)
            discard_leftovers(folder.parent.glob("*.partial-*"), idle_s=_IDLE_S)
            _unpack(path, missing, partial)
            for one in missing:
                _put(one, partial, folder)
            discard(partial)
    with suppress(OSError):
        os.utime(folder)  # its last use, by which the cache is pruned
    return [folder.joinpath(*one.parts) for one in members]


def _is_there(folder: Path, member: Member) -> bool:
    """Return whether a file was unpacked whole."""
    try:
        return folder.joinpath(*member.parts).stat().st_size == member.info.file_size
    except OSError:
        return False


def _put(member: Member, partial: Path, folder: Path) -> None:
    """Move an unpacked file to its place, unless another process did, and reads it there."""
    target = folder.joinpath(*member.parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        move(partial.joinpath(*member.parts), target)
    except PermissionError:
        if not _is_there(folder, member):
            raise


def _check_size(path: Path, members: Sequence[Member]) -> None:
    """Raise DataError for an archive that a few bytes make huge. No more than its record of a size is unpacked."""
    size = sum(one.info.file_size for one in members)
    if size > _HARMLESS and size > _HIGHEST_RATIO * sum(one.info.compress_size for one in members):
        raise DataError(
            f"압축을 풀면 {size / 2**30:,.1f} GiB나 되어 읽지 않습니다.",
            where=str(path),
            remedy="믿을 수 있는 파일이면 직접 풀어 그 폴더를 지정하세요.",
        )


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
    """Return the names in a member's path, as they are written to the disk."""
    named = (part for part in _name_of(info).replace("\\", "/").split("/") if part not in ("", ".", ".."))
    cleaned = (_NOT_IN_NAMES.sub("_", part).strip(" ") or "_" for part in named)
    return tuple(part if len(part.encode()) <= _LONGEST_NAME else _with_hash(part, part) for part in cleaned)


def _name_of(info: zipfile.ZipInfo) -> str:
    """Return a member's path. Where its flags do not say UTF-8, macOS writes that all the same, Windows CP949."""
    name = info.filename
    if not info.flag_bits & _IN_UTF8:
        with suppress(UnicodeError):
            written = name.encode("cp437")
            try:
                name = written.decode("utf-8")
            except UnicodeDecodeError:
                name = written.decode("cp949")
    return unicodedata.normalize("NFC", name)


def _with_hash(name: str, of: str) -> str:
    """Return a name with a short hash before its suffix, cut to what a disk allows."""
    suffix = Path(name).suffix
    if len(suffix.encode()) > _LONGEST_SUFFIX:
        suffix = ""
    end = f"-{content_key(of)[:8]}{suffix}"
    start = name.removesuffix(suffix).encode()[: _LONGEST_NAME - len(end.encode())]
    return start.decode(errors="ignore") + end


def _is_data(parts: Sequence[str]) -> bool:
    return bool(parts) and is_supported(Path(parts[-1])) and not any(part.startswith(HIDDEN) for part in parts)
