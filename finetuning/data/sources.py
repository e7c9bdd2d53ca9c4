"""The sources of rows: files, a folder of files, a dataset of the Hub, or lines of text."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from exceptions import DataError, SettingsError
from finetuning.config.schema import DataSettings
from finetuning.data.archives import is_archive, members_of
from finetuning.data.folders import Files, configurations, named_files, nothing_found, splits_in, unread_beside
from finetuning.data.formats.class_names import information_beside
from finetuning.data.formats.registry import check_path, is_json, is_supported, open_source
from finetuning.data.hub import load_hub
from finetuning.data.retrieval_folder import COLUMNS, corpus_files, incomplete, is_retrieval, judged_by_split
from finetuning.data.shapes.registry import flat_rows
from finetuning.data.trees import Tree, files_in_tree
from finetuning.files import content_key, may_be_hub_id, similar_name

_SHOWN = 5


@dataclass(frozen=True)
class Raw:
    """Unprocessed rows of a source, before the task's columns are known.

    Attributes:
        where: The source, as messages name it.
        columns: Names of the columns.
        rows: Cells by column; can be iterated again.
        key: A hash of the content.
        notes: How the source was read, a sentence each, for the log.
    """

    where: str
    columns: tuple[str, ...]
    rows: Iterable[Mapping[str, Any]]
    key: str
    notes: tuple[str, ...] = ()


def find_sources(data: DataSettings) -> dict[str, Raw]:
    """Find the splits of the data: those of `data.dataset_name`, and the files that settings name for a split.

    Args:
        data: The settings of the data.

    Returns:
        The source of each split, by name. A single file is `train`.

    Raises:
        DataError: There is no such file, folder or dataset.
        SettingsError: Settings contradict each other, or one does not apply to any file.
    """
    named = {split: Path(name) for split, name in data.split_files().items()}
    files: dict[str, Files] = {split: (_existing(path, f"data.{split}_file"),) for split, path in named.items()}
    if data.reads_dataset_name():
        _check_no_train_file(data)
        path = Path(data.dataset_name).expanduser()
        if os.path.lexists(path) and not path.is_dir() and not (path.is_file() and is_archive(path)):
            check_path(path)
        if not (path.is_file() or path.is_dir()):
            return {**_from_hub(data), **_opened(files, data)}
        if path.is_dir() and is_retrieval(path):
            return {**_judged(path, data), **_opened(files, data)}
        tree = _files_at(path, data)
        files = {**tree.files, **files}
    if data.revision is not None:
        raise SettingsError(
            "data.revision은 Hugging Face Hub의 데이터셋에만 쓸 수 있습니다.",
            where=f"data.revision: {data.revision}, 읽을 데이터: {data.shown_name()}",
            remedy="data.revision을 null로 두세요.",
        )
    read = [file for of_split in files.values() for file in of_split]
    _check_records(data, read)
    found = _opened(files, data)
    if data.reads_dataset_name() and (note := tree.note or (_unread(read) if path.is_dir() else "")):
        split, first = next(iter(found.items()))
        found[split] = replace(first, notes=(*first.notes, note))
    return found


def _unread(read: Sequence[Path]) -> str:
    """Return a note on the files that lie beside those which are read."""
    if not (unread := unread_beside(read)):
        return ""
    names = ", ".join(other.name for other in unread[:_SHOWN])
    more = f" 외 {len(unread) - _SHOWN:,}개" if len(unread) > _SHOWN else ""
    return f"폴더에 있지만 이름에 train, validation, test가 없어 읽지 않은 파일: {names}{more}"


def _files_at(path: Path, data: DataSettings) -> Tree:
    """Return the files of a path by split: the file itself, those of a folder, else those below it and in archives."""
    if path.is_file() and not is_archive(path):
        return Tree({"train": (path,)}, "")
    found = _in_folder(path, data.dataset_config) if path.is_dir() else {}
    if found:
        return Tree(found, "")
    if not (path.is_dir() and configurations(path)):
        tree = files_in_tree(path, Path(data.dataset_cache_dir).expanduser())
        if tree is not None:
            return tree
    raise nothing_found(path) if path.is_dir() else _nothing_in_archive(path)


def _in_folder(folder: Path, config: str | None) -> dict[str, Files]:
    try:
        found = named_files(folder, config)
    except DataError as error:
        raise incomplete(folder) or error from None
    if not found and (reason := incomplete(folder)):
        raise reason
    return found


def _nothing_in_archive(path: Path) -> DataError:
    names = ["/".join(member.parts) for member in members_of(path)]
    if names:
        shown = ", ".join(names[:_SHOWN]) + (" 등" if len(names) > _SHOWN else "")
        return DataError(
            f"zip에 있는 파일 {len(names):,}개가 어느 split인지 알 수 없습니다: {shown}",
            where=str(path),
            remedy="압축을 풀어 파일 하나를 지정하거나, 파일이나 폴더의 이름에 train, validation, test를 넣으세요.",
        )
    return DataError(
        "zip에서 데이터 파일을 찾지 못했습니다.",
        where=str(path),
        remedy="압축을 풀어 안을 확인하고, 데이터 파일을 지정하거나 이름에 train, validation, test를 넣으세요.",
    )


def _existing(path: Path, setting: str) -> Path:
    if path.is_file():
        return path
    if os.path.lexists(path) and not path.is_dir():
        check_path(path)
    if not path.is_dir():
        raise _no_file(str(path), setting)
    raise DataError(
        f"파일이 아니라 폴더입니다: {path}",
        where=setting,
        remedy="폴더 안의 파일을 쓰거나, 폴더를 data.dataset_name에 쓰세요.",
    )


def _no_file(name: str, setting: str) -> DataError:
    return DataError(
        f"데이터 파일이 없습니다: {name}",
        where=setting,
        remedy=f"{similar_name(Path(name).expanduser())}경로의 철자를 확인하세요. 지금 폴더는 {Path.cwd()}입니다.",
    )


def _check_no_train_file(data: DataSettings) -> None:
    """Check that the training rows, which `data.dataset_name` has, are not named again."""
    if data.train_file is not None:
        raise SettingsError(
            "학습 데이터를 두 곳에 썼습니다.",
            where=f"data.train_file: {data.train_file}, data.dataset_name: {data.dataset_name}",
            remedy="둘 가운데 하나만 쓰세요.",
        )


def _opened(files: Mapping[str, Files], data: DataSettings) -> dict[str, Raw]:
    return {split: raw_files(of_split, data) for split, of_split in files.items()}


def _check_records(data: DataSettings, files: Iterable[Path]) -> None:
    """Check that `data.records`, if set, applies to some file: only JSON has a path to its rows."""
    if data.records is None or any(is_json(file) for file in files):
        return
    raise SettingsError(
        "data.records는 JSON 파일에만 쓸 수 있습니다.",
        where=f"data.records: {data.records}, 읽을 데이터: {data.shown_name()}",
        remedy="data.records를 null로 두거나, data.dataset_name에 JSON 파일(.json, .jsonl, .ndjson)을 쓰세요.",
    )


def corpus_of(data: DataSettings) -> list[Path]:
    """Return the files of the corpus of a folder of queries, a corpus and judgements; none for other data."""
    path = Path(data.dataset_name).expanduser() if data.reads_dataset_name() else None
    return corpus_files(path) if path is not None and path.is_dir() and is_retrieval(path) else []


def _judged(folder: Path, data: DataSettings) -> dict[str, Raw]:
    """Open a folder of queries, a corpus and judgements."""
    splits = judged_by_split(folder, lambda path: open_source(path, data.encoding))
    return {split: Raw(one.where, COLUMNS, one.rows, one.key, (one.note,)) for split, one in splits.items()}


def raw_file(path: Path, data: DataSettings) -> Raw:
    """Open a file.

    Args:
        path: The file.
        data: The settings of the data: its encoding and the path to its records.

    Returns:
        All rows of the file.

    Raises:
        DataError: The file cannot be read.
    """
    source = open_source(path, data.encoding, data.records)
    columns, rows, note = flat_rows(source.columns, source.rows, str(path))
    parts = [str(data.encoding), path.suffix.casefold(), *([data.records] if data.records else [])]
    beside = information_beside(path)
    key = content_key(_file_hash(path), *parts, *([_file_hash(beside)] if beside else []))
    return Raw(str(path), columns, rows, key, (*source.notes, *([note] if note else [])))


def raw_files(paths: Sequence[Path], data: DataSettings) -> Raw:
    """Open files as one source, one after another.

    Args:
        paths: One file or more, such as the shards of a split.
        data: The settings of the data.

    Returns:
        All rows of the files, numbered through.

    Raises:
        DataError: A file cannot be read, or has other columns than the first.
    """
    parts = [raw_file(path, data) for path in paths]
    if len(parts) == 1:
        return parts[0]
    columns = tuple(dict.fromkeys(column for part in parts for column in part.columns))
    for path, part in zip(paths, parts, strict=True):
        if set(part.columns) != set(parts[0].columns) and not is_json(path):  # a record of JSON may lack a key
            raise DataError(
                f"이어 읽을 파일들의 열이 다릅니다: {', '.join(part.columns)}",
                where=f"{path} (첫 파일 {paths[0].name}의 열: {', '.join(parts[0].columns)})",
                remedy="모든 파일의 열 이름을 맞추거나, 다른 데이터이면 폴더에서 빼세요.",
            )
    where = f"{paths[0]} 등 파일 {len(paths):,}개"
    notes = dict.fromkeys(note for part in parts for note in part.notes)
    return Raw(where, columns, _Joined(parts, columns), content_key(*(part.key for part in parts)), tuple(notes))


@dataclass(frozen=True)
class _Joined:
    """The rows of several sources, with every column; None where a source lacks one."""

    parts: Sequence[Raw]
    columns: tuple[str, ...]

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        for part in self.parts:
            lacking = dict.fromkeys(column for column in self.columns if column not in part.columns)
            yield from ({**lacking, **row} for row in part.rows) if lacking else part.rows


def raw_lines(lines: Iterable[str], columns: Sequence[str]) -> Raw:
    """Read lines of standard input.

    Args:
        lines: Lines, with a cell for each column, separated by tabs.
        columns: Names of the columns.

    Returns:
        A row for each line.

    Raises:
        DataError: A line has another number of cells.
    """
    rows: list[dict[str, str]] = []
    for number, line in enumerate(lines, 1):
        fields = line.rstrip("\r\n").split("\t") if len(columns) > 1 else [line.rstrip("\r\n")]
        if len(fields) != len(columns):
            raise DataError(
                f"한 줄에 텍스트 {len(columns)}개가 tab으로 나뉘어 있어야 하는데 {len(fields)}개입니다.",
                where=f"표준 입력 {number}번째 줄",
                remedy="두 텍스트 사이에 tab을 하나 넣으세요.",
            )
        rows.append(dict(zip(columns, fields, strict=True)))
    return Raw("표준 입력", tuple(columns), rows, content_key(json.dumps(rows, ensure_ascii=False)))


def _from_hub(data: DataSettings) -> dict[str, Raw]:
    name = data.dataset_name
    if is_supported(Path(name)) or is_archive(Path(name)) or not may_be_hub_id(name):
        raise _no_file(name, "data.dataset_name")
    _check_records(data, ())
    found: dict[str, Raw] = {}
    for split, rows in load_hub(name, data.dataset_config, data.dataset_cache_dir, data.revision).items():
        for role in splits_in(split.split("_")[0]) - found.keys():
            where = f"{name} ({split})"
            columns, flat, note = flat_rows(rows.columns, rows, where)
            found[role] = Raw(where, columns, flat, rows.key, (note,) if note else ())
    return found


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
