"""Files of a set that lie folders deep or in zip archives, as AI Hub gives them.

`Training/02.라벨링데이터/TL_문학.zip` is training data; its raw texts are in `Training/01.원천데이터/TS_문학.zip`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetuning.data.archives import is_archive, members_of, unpacked
from finetuning.data.folders import HIDDEN, METADATA, Files, split_words_in, splits_in
from finetuning.data.formats.registry import is_json, is_supported

_LABELLED, _RAW = "라벨", "원천"


@dataclass(frozen=True)
class Tree:
    """The files that are read of a folder with folders, or of an archive.

    Attributes:
        files: The files of each split, in their order.
        note: How they were found, for the log.
    """

    files: dict[str, Files]
    note: str


@dataclass(frozen=True)
class _Entry:
    """A file or an archive; parts: the names that lead to it, from the folder that the user named."""

    path: Path
    parts: tuple[str, ...]


def files_in_tree(root: Path, cache: Path) -> Tree | None:
    """Find the files below a folder, or in an archive, by split.

    The first name on a file's way that is an English word for a split tells it, else the first that begins with a
    Korean one. Where nothing has a split, JSON files are training data, and so is an archive's only file.

    Args:
        root: The folder or the archive.
        cache: The folder of the data's cache, into which archives are unpacked.

    Returns:
        The files; None if there are none, or no name tells what they are for.

    Raises:
        DataError: An archive is damaged, or needs a password.
        ResourceError: The disk is full or cannot be written.
    """
    is_one = is_archive(root)
    found = [_Entry(root, ())] if is_one else _below(root)
    archives = [entry for entry in found if is_archive(entry.path)]
    by_split: dict[str, list[_Entry]] = {}
    for entry in found:
        split = _split_of(entry.parts)
        for one in [entry] if split or not is_archive(entry.path) else _inside(entry, cache):
            by_split.setdefault(split or _split_of(one.parts) or "", []).append(one)
    unnamed = by_split.pop("", [])
    if not by_split and _are_training_data(_without_raw(unnamed), is_one):
        by_split, unnamed = {"train": unnamed}, []
    files, raw = {}, 0
    for split, entries in by_split.items():
        labelled = _without_raw(entries)
        raw += len(entries) - len(labelled)
        inside = [one for entry in labelled for one in (_inside(entry, cache) if is_archive(entry.path) else [entry])]
        if chosen := _of_one_kind([one.path for one in inside]):
            files[split] = chosen
    return Tree(files, _note(files, raw, len(unnamed), archives, cache)) if files else None


def _below(folder: Path) -> list[_Entry]:
    """Return the data files and archives below a folder; an archive that lies beside its own folder is left out."""
    found = []
    for inside, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(HIDDEN))
        above = Path(inside)
        for path in (above / name for name in sorted(names) if not name.startswith(HIDDEN) and name not in METADATA):
            if path.is_file() and (is_supported(path) or is_archive(path)):
                found.append(_Entry(path, (*above.relative_to(folder).parts, path.stem)))
    filled = {parent for entry in found if not is_archive(entry.path) for parent in entry.path.parents}
    return [one for one in found if not (is_archive(one.path) and one.path.with_suffix("") in filled)]


def _inside(entry: _Entry, cache: Path) -> list[_Entry]:
    """Return the files of an archive, unpacked."""
    members = members_of(entry.path)
    paths = unpacked(entry.path, members, cache) if members else []
    return [_Entry(path, (*entry.parts, *one.parts[:-1], path.stem)) for path, one in zip(paths, members, strict=True)]


def _split_of(parts: Sequence[str]) -> str | None:
    for read in (split_words_in, splits_in):
        for part in parts:
            if len(splits := read(part)) == 1:
                return next(iter(splits))
    return None


def _without_raw(entries: Sequence[_Entry]) -> list[_Entry]:
    """Return the entries, without those of raw texts where there are labelled ones."""
    if not any(_has(entry, _LABELLED) for entry in entries):
        return list(entries)
    return [entry for entry in entries if _has(entry, _LABELLED) or not _has(entry, _RAW)]


def _has(entry: _Entry, word: str) -> bool:
    return any(word in part for part in entry.parts)


def _of_one_kind(paths: Sequence[Path]) -> Files:
    """Return the JSON files, if there are any: others beside them are descriptions."""
    return tuple(path for path in paths if is_json(path)) or tuple(paths)


def _are_training_data(entries: Sequence[_Entry], is_one_archive: bool) -> bool:
    if is_one_archive and len(entries) == 1:
        return True
    return len(entries) > 1 and all(is_json(entry.path) for entry in entries)


def _note(files: dict[str, Files], raw: int, unnamed: int, archives: Iterable[_Entry], cache: Path) -> str:
    counts = ", ".join(f"{split} {len(paths):,}개" for split, paths in files.items())
    said = [f"하위 폴더까지 찾아 파일을 읽었습니다: {counts}."]
    if raw:
        said.append(f"라벨링데이터가 있어 원천데이터의 파일 {raw:,}개는 읽지 않았습니다.")
    if unnamed:
        said.append(f"어느 split인지 알 수 없는 파일 {unnamed:,}개는 읽지 않았습니다.")
    if any(archives):
        said.append(f"zip은 {cache / 'unpacked'}에 풀었습니다.")
    return " ".join(said)
