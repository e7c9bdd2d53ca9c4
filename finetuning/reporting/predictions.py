"""Predictions for people and programs: JSONL and CSV files."""

from __future__ import annotations

import csv
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exceptions import ResourceError, SettingsError
from finetuning.files import discard, move, writing
from finetuning.korean.particles import with_particle

_log = logging.getLogger(__name__)
_LABELS_SHOWN = 20
_FORMULA_STARTS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # full-width ones count in Excel too
_NUMBER = re.compile(r"[+-]?[0-9][0-9.,]*(?:[eE][+-]?[0-9]+)?%?")
# What a terminal acts on, and JSON leaves as it is. Escaped, it reads back as the same text.
_UNSHOWABLE = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass
class Said:
    """What was predicted, in numbers.

    Attributes:
        rows: Rows of the source.
        predicted: Rows with a prediction.
        labels: How often each label was predicted.
    """

    rows: int = 0
    predicted: int = 0
    labels: Counter[str] = field(default_factory=Counter)

    def count(self, labels: Iterable[str]) -> None:
        """Count the labels of one prediction."""
        self.predicted += 1
        self.labels.update(labels)

    def line(self) -> str:
        """Return the counts as a line for the log."""
        parts = [f"예측한 행 {self.predicted:,}개"]
        if self.labels:
            shown = ", ".join(f"{label} {count:,}" for label, count in self.labels.most_common(_LABELS_SHOWN))
            more = len(self.labels) - _LABELS_SHOWN
            parts.append(f"라벨별 개수: {shown}" + (f" 외 {more:,}종" if more > 0 else ""))
        if self.predicted < self.rows:
            parts.append(f"텍스트가 없어 예측하지 않은 행 {self.rows - self.predicted:,}개")
        return ". ".join(parts)


def check_output(path: Path | None, source: Path | None = None, others: Sequence[str] = ()) -> None:
    """Check, before any work, that predictions can be written, and over no file that has to stay.

    Args:
        path: The file of `--output`, or None for standard output.
        source: The file of `--input`, or None for standard input.
        others: Suffixes of files that the task's predictions can be written to beside those of all tasks.

    Raises:
        SettingsError: The suffix is unknown, the path is a folder, a pipe or lies in no folder, or the file is the one
            that is read or a run's record of its training.
        ResourceError: The folder is not writable.
    """
    if path is None:
        return
    if path.is_dir() or not path.parent.is_dir():
        lacking = "폴더가 아니라 파일입니다" if path.parent.is_file() else "결과를 쓸 폴더가 없습니다"
        raise SettingsError(
            "파일이 아니라 폴더입니다." if path.is_dir() else f"{lacking}: {path.parent}",
            where=f"--output {path}",
            remedy="있는 폴더 안의 파일 이름을 쓰세요.",
        )
    if path.suffix.lower() not in {".csv", ".jsonl", ".ndjson", *others}:
        raise SettingsError(
            f"예측 결과를 '{path.suffix or path.name}' 형식으로는 쓸 수 없습니다.",
            where=f"--output {path}",
            remedy=f"{', '.join(('.jsonl', *others))} 또는 .csv로 끝나는 이름을 쓰세요.",
        )
    if path.exists():
        _check_may_be_replaced(path, source)
    if not os.access(path.parent, os.W_OK):
        raise ResourceError(
            "결과를 쓸 폴더에 쓰기 권한이 없습니다.", where=f"--output {path}", remedy="다른 폴더를 고르세요."
        )


def _check_may_be_replaced(path: Path, source: Path | None) -> None:
    what = None
    if not path.is_file():
        what = "파이프나 장치"
    elif source is not None and source.exists() and path.samefile(source):
        what = "--input으로 읽는 바로 그 파일"
    elif path.name == "metrics.jsonl" and (path.parent / "config.json").exists():
        what = "학습 기록"
    if what is not None:
        raise SettingsError(
            f"--output이 {with_particle(what, '이어서/여서')} 쓰지 않습니다.",
            where=f"--output {path}",
            remedy="다른 이름을 쓰세요. 입력 파일의 열은 결과에 모두 들어갑니다.",
        )


def beside(row: Mapping[str, Any], prediction: Mapping[str, Any]) -> dict[str, Any]:
    """Merge a row and its prediction; a prediction whose name the row has becomes `predicted_<name>`."""
    found = dict(row)
    for name, value in prediction.items():
        while name in row:
            name = f"predicted_{name}"
        found[name] = value
    return found


def as_cell(value: Any) -> Any:
    """Return a list or an object as JSON, which reads back, and any other value unchanged."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def as_cell_without_formula(value: Any) -> Any:
    """Return a value like `as_cell`, with an apostrophe before a text that a spreadsheet would run as a formula."""
    cell = as_cell(value)
    is_formula = isinstance(cell, str) and cell.lstrip()[:1] in _FORMULA_STARTS and not _NUMBER.fullmatch(cell)
    return f"'{cell}" if is_formula and cell.strip() else cell


def write_predictions(
    path: Path | None, records: Iterable[Mapping[str, Any]], cell: Callable[[Any], Any] = as_cell
) -> None:
    """Write predictions one by one, as JSONL to standard output, or to a .jsonl or .csv file by its suffix.

    A file is complete or not there at all; the log says when it is.

    Args:
        path: The file, or None for standard output.
        records: Rows with their predictions, JSON values by column.
        cell: Makes a value, or a column's name, a cell of a CSV file.

    Raises:
        ResourceError: The disk is full or cannot be written.
    """
    if path is None:
        for record in records:
            print(_UNSHOWABLE.sub(_as_json_escape, json.dumps(record, ensure_ascii=False)))
        return
    path = path.resolve() if path.is_symlink() else path  # the link stays, and its file is replaced
    note = " (있던 파일을 바꿨습니다)" if path.exists() else ""
    rows = write_records(path, records, cell)
    _log.info("예측 결과 %s행을 저장했습니다%s: %s", f"{rows:,}", note, path)


def write_records(path: Path, records: Iterable[Mapping[str, Any]], cell: Callable[[Any], Any] = as_cell) -> int:
    """Write records to a .jsonl or .csv file, which is complete or not there at all.

    Args:
        path: The file.
        records: JSON values by column.
        cell: As of `write_predictions`.

    Returns:
        The number of records.

    Raises:
        ResourceError: The disk is full or cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    lines = path.with_name(f".{path.name}.lines.partial")
    try:
        columns, rows = _write_lines(lines, path, records)
        with _writing(path):
            if path.suffix.lower() == ".csv":
                _write_csv(partial, lines, columns, cell)
            else:
                move(lines, partial)
        put_in_place(partial, path)
        return rows
    finally:
        discard(partial)
        discard(lines)


def put_in_place(written: Path, path: Path) -> None:
    """Give a file of predictions its name. Where a program such as Excel has the old file open, keep it under another.

    Args:
        written: The whole file.
        path: Its name.

    Raises:
        ResourceError: It has another name now, which the error tells.
    """
    try:
        with _writing(path):
            move(written, path)
    except ResourceError as error:
        number = 2
        while (kept := path.with_name(f"{path.stem}-{number}{path.suffix}")).exists():
            number += 1
        with _writing(kept):
            move(written, kept)
        error.remedy = f"예측 결과는 {kept} 파일에 있습니다. {path} 파일을 연 프로그램을 닫고 이름을 바꾸세요."
        raise


def _as_json_escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _writing(path: Path) -> AbstractContextManager[None]:
    return writing("예측 결과를 쓰지 못했습니다", path)


def _write_lines(lines: Path, path: Path, records: Iterable[Mapping[str, Any]]) -> tuple[list[str], int]:
    """Write records as JSONL on the way to `path`; return their columns, as they first appear, and their number."""
    columns, rows = dict[str, None](), 0
    with _writing(path):
        file = lines.open("w", encoding="utf-8", newline="")
    try:
        for record in records:  # what fails in here is not the disk that predictions go to
            columns.update(dict.fromkeys(record))
            rows += 1
            with _writing(path):
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
        with _writing(path):
            file.flush()
    finally:
        with suppress(OSError):  # a full disk fails again here
            file.close()
    return list(columns), rows


def _write_csv(path: Path, lines: Path, columns: Sequence[str], cell: Callable[[Any], Any]) -> None:
    """Write JSONL as CSV, in UTF-8 with a BOM, without which Excel on Korean Windows shows broken characters.

    The columns are known after the last row only: a row without text has no prediction.
    """
    with lines.open(encoding="utf-8", newline="\n") as rows, path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=columns)
        writer.writerow({name: cell(name) for name in columns})
        for line in rows:
            writer.writerow({name: cell(value) for name, value in json.loads(line).items()})
