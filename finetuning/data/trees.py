"""Files of a set that lie folders deep or in zip archives, as AI Hub gives them.

`Training/02.라벨링데이터/TL_문학.zip` is training data; its raw texts are in `Training/01.원천데이터/TS_문학.zip`.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from exceptions import DataError
from finetuning.data.archives import UNPACKED, Member, is_archive, members_of, unpacked
from finetuning.data.cache import PREPARED
from finetuning.data.folders import HIDDEN, METADATA, Files, split_words_in, splits_in
from finetuning.data.formats.registry import is_json, is_supported

_LABELLED, _RAW = "라벨", "원천"
_TEXT = ".txt"
_OF_GROUPS = "sweep.json"  # in a folder of runs
_OF_RUNS = frozenset({"settings.yaml", "run.json"})  # in that of a run, beside one of the next
_BESIDE = _OF_RUNS | {"checkpoints", "summary.json", "config.json", "adapter_config.json"}


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
    """A file, an archive, or a file in an archive.

    Attributes:
        path: The file or the archive.
        parts: The names that lead to it, from the folder that the user named, composed (NFC).
        member: The file in the archive; None for others.
    """

    path: Path
    parts: tuple[str, ...]
    member: Member | None = None

    @property
    def name(self) -> Path:
        """The file's own name."""
        return Path(self.member.parts[-1] if self.member else self.path.name)

    def opened(self) -> list[_Entry]:
        """Return the files of an archive, which need not be unpacked for that; a file is its own."""
        if self.member is not None or not is_archive(self.path):
            return [self]
        members = members_of(self.path)
        return [_Entry(self.path, (*self.parts, *one.parts[:-1], Path(one.parts[-1]).stem), one) for one in members]


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
    found = [_Entry(root, ())] if is_one else _below(root, cache)
    by_split: dict[str, list[_Entry]] = {}
    for entry in found:
        split = _split_of(entry.parts)
        for one in [entry] if split else entry.opened():
            by_split.setdefault(split or _split_of(one.parts) or "", []).append(one)
    unnamed = by_split.pop("", [])
    if not by_split and _are_training_data(_without_raw(unnamed), is_one):
        by_split, unnamed = {"train": unnamed}, []
    files: dict[str, Files] = {}
    raw, others, are_unpacked = 0, [], False
    for split, entries in by_split.items():
        labelled = _without_raw(entries)
        opened = [one for entry in labelled for one in entry.opened()]
        inside = _without_raw(opened)
        raw += len(entries) - len(labelled) + len(opened) - len(inside)
        if chosen := _of_one_kind(inside, split):
            files[split] = tuple(_on_disk(chosen, cache))
            others += [one for one in inside if not is_json(one.name)] if len(chosen) < len(inside) else []
            are_unpacked = are_unpacked or any(one.member for one in chosen)
    if not files:
        return None
    return Tree(files, _note(files, raw, others, len(unnamed), cache / UNPACKED if are_unpacked else None))


def _below(root: Path, cache: Path) -> list[_Entry]:
    """Return the data files and archives below a folder, without what this program wrote: its cache, and its runs.

    An archive that lies beside its own folder is left out, too.
    """
    ours = {path.resolve() for path in (cache, cache / UNPACKED, cache / PREPARED)}
    found = []
    for inside, folders, names in os.walk(root):
        folder = Path(inside)
        if folder != root and (folder.resolve() in ours or _is_run({*folders, *names})):
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith(HIDDEN))
        above = folder.relative_to(root).parts
        for path in (folder / name for name in sorted(names) if not name.startswith(HIDDEN) and name not in METADATA):
            if path.is_file() and (is_supported(path) or is_archive(path)):
                parts = (unicodedata.normalize("NFC", part) for part in (*above, path.stem))
                found.append(_Entry(path, tuple(parts)))
    filled = {parent for entry in found if not is_archive(entry.path) for parent in entry.path.parents}
    return [one for one in found if not (is_archive(one.path) and one.path.with_suffix("") in filled)]


def _is_run(names: set[str]) -> bool:
    """Return whether a folder of these names is of a run of this program, of several, or of an exported model."""
    return _OF_GROUPS in names or (bool(names & _OF_RUNS) and len(names & _BESIDE) > 1)


def _on_disk(entries: Iterable[_Entry], cache: Path) -> Iterator[Path]:
    """Yield the paths of files; those in archives are unpacked."""
    for path, group in groupby(entries, key=lambda entry: entry.path):
        members = [entry.member for entry in group if entry.member is not None]
        yield from unpacked(path, members, cache) if members else [path]


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


def _of_one_kind(entries: Sequence[_Entry], split: str) -> list[_Entry]:
    """Return the JSON files, if any: others describe them. Raise DataError where those are as many, and no texts."""
    documents = [entry for entry in entries if is_json(entry.name)]
    others = [entry for entry in entries if not is_json(entry.name) and entry.name.suffix.casefold() != _TEXT]
    are_labelled = any(_LABELLED in part for entry in documents for part in entry.parts[:-1])
    if documents and len(others) >= len(documents) and not are_labelled:
        raise DataError(
            f"{split} 데이터에 JSON과 다른 형식의 파일이 함께 있어 어느 것을 읽을지 알 수 없습니다.",
            where=f"{documents[0].path.parent} (JSON {len(documents):,}개: {documents[0].name} 등, "
            f"다른 형식 {len(others):,}개: {others[0].name} 등)",
            remedy="읽을 파일을 --dataset 플래그로 지정하거나, 데이터가 아닌 파일을 폴더에서 빼세요.",
        )
    return documents or list(entries)


def _are_training_data(entries: Sequence[_Entry], is_one_archive: bool) -> bool:
    if is_one_archive and len(entries) == 1:
        return True
    return len(entries) > 1 and all(is_json(entry.name) for entry in entries)


def _note(files: dict[str, Files], raw: int, others: Sequence[_Entry], unnamed: int, unpacked_to: Path | None) -> str:
    counts = ", ".join(f"{split} {len(paths):,}개" for split, paths in files.items())
    said = [f"하위 폴더까지 찾아 파일을 읽었습니다: {counts}."]
    if raw:
        said.append(f"라벨링데이터가 있어 원천데이터의 파일 {raw:,}개는 읽지 않았습니다.")
    if others:
        said.append(f"JSON이 있어 다른 형식의 파일 {len(others):,}개({others[0].name} 등)는 읽지 않았습니다.")
    if unnamed:
        said.append(f"어느 split인지 알 수 없는 파일 {unnamed:,}개는 읽지 않았습니다.")
    if unpacked_to is not None:
        said.append(f"zip은 {unpacked_to}에 풀었습니다.")
    return " ".join(said)
