"""The sources of rows: a file, a folder with a file a split, a dataset of the Hub, or lines of text."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exceptions import DataError, SettingsError
from finetuning.config.schema import DataSettings
from finetuning.data.formats.registry import is_json, is_supported, open_source
from finetuning.data.hub import load_hub
from finetuning.data.shapes.registry import flat_rows
from finetuning.files import content_key, may_be_hub_id

_SPLIT_WORDS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "eval": "validation", "test": "test", "testing": "test",
}  # fmt: skip
_SPLIT_PREFIXES = {  # Korean nouns are compounded: 학습데이터, 검증용
    "학습": "train", "훈련": "train", "검증": "validation", "테스트": "test", "평가": "test", "시험": "test",
}  # fmt: skip


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
    """Find the splits of `data.dataset_name`.

    Args:
        data: The settings of the data.

    Returns:
        The source of each split, by name. A single file is `train`.

    Raises:
        DataError: There is no such file, folder or dataset.
        SettingsError: `data.records` is set, and no file is JSON.
    """
    name = data.dataset_name
    path = Path(name).expanduser()
    if path.is_file() or path.is_dir():
        files = {"train": path} if path.is_file() else _files_by_split(path)
        _check_records(data, files.values())
        return {split: raw_file(file, data) for split, file in files.items()}
    if is_supported(path) or not may_be_hub_id(name):
        raise DataError(
            f"데이터 파일이 없습니다: {name}",
            where="data.dataset_name",
            remedy=f"경로의 철자를 확인하세요. 지금 폴더는 {Path.cwd()}입니다.",
        )
    _check_records(data, ())
    return _from_hub(data)


def _check_records(data: DataSettings, files: Iterable[Path]) -> None:
    """Check that `data.records`, if set, applies to some file: only JSON has a path to its rows."""
    if data.records is None or any(is_json(file) for file in files):
        return
    raise SettingsError(
        "data.records는 JSON 파일에만 쓸 수 있습니다.",
        where=f"data.records: {data.records}, data.dataset_name: {data.dataset_name}",
        remedy="data.records를 null로 두거나, data.dataset_name에 JSON 파일(.json, .jsonl, .ndjson)을 쓰세요.",
    )


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
    columns, rows = flat_rows(source.columns, source.rows, str(path))
    parts = [str(data.encoding), path.suffix.casefold(), *([data.records] if data.records else [])]
    return Raw(str(path), columns, rows, content_key(_file_hash(path), *parts), source.notes)


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
    found: dict[str, Raw] = {}
    name = data.dataset_name
    for split, rows in load_hub(name, data.dataset_config, data.dataset_cache_dir).items():
        for role in _splits_in(split.split("_")[0]) - found.keys():
            where = f"{name} ({split})"
            found[role] = Raw(where, *flat_rows(rows.columns, rows, where), rows.key)
    return found


def _files_by_split(folder: Path) -> dict[str, Path]:
    """Find the files of a folder by the split in their names, such as `ratings_train.txt` and `dev.csv`."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not (path.is_file() and (is_supported(path) or not path.suffix)):
            continue
        for split in _splits_in(path.stem):
            if split in found:
                raise DataError(
                    f"{split} 파일이 둘입니다: {found[split].name}, {path.name}",
                    where=str(folder),
                    remedy="하나만 남기거나, data.dataset_name에 파일을 직접 쓰세요.",
                )
            found[split] = path
    if not found:
        raise DataError(
            "폴더에서 데이터 파일을 찾지 못했습니다.",
            where=str(folder),
            remedy="파일 이름에 train, validation, test를 넣으세요. 예: train.csv, test.csv",
        )
    return found


def _splits_in(name: str) -> set[str]:
    """Return the splits that a name's words mean; if no whole word does, the beginnings of Korean words count."""
    composed = unicodedata.normalize("NFC", name).casefold()
    words = "".join(letter if letter.isalpha() else " " for letter in composed).split()
    exact = {_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS}
    return exact or {split for word in words for start, split in _SPLIT_PREFIXES.items() if word.startswith(start)}


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
