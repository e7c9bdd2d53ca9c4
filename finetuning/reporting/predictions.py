"""Predictions as files: checked before any work, then written as JSONL or CSV."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from exceptions import ResourceError, SettingsError
from finetuning.files import write_atomically, writing


def check_output(path: Path | None) -> None:
    """SettingsError or ResourceError where predictions could not be written, before any time goes into them."""
    if path is None:
        return
    if path.suffix.lower() not in {".csv", ".jsonl", ".ndjson"}:
        raise SettingsError(
            f"예측 결과를 '{path.suffix or path.name}' 형식으로는 쓸 수 없습니다.",
            where=f"--output {path}",
            remedy=".jsonl 또는 .csv로 끝나는 이름을 쓰세요.",
        )
    if path.is_dir() or not path.parent.is_dir():
        raise SettingsError(
            "파일이 아니라 폴더입니다." if path.is_dir() else f"결과를 쓸 폴더가 없습니다: {path.parent}",
            where=f"--output {path}",
            remedy="있는 폴더 안의 파일 이름을 쓰세요.",
        )
    if not os.access(path.parent, os.W_OK):
        raise ResourceError(
            "결과를 쓸 폴더에 쓰기 권한이 없습니다.", where=f"--output {path}", remedy="다른 폴더를 고르세요."
        )


def beside(row: Mapping[str, Any], prediction: Mapping[str, Any]) -> dict[str, Any]:
    """A row and its prediction; what the row has by the same name stays, and is predicted as `predicted_<name>`."""
    found = dict(row)
    for name, value in prediction.items():
        while name in row:
            name = f"predicted_{name}"
        found[name] = value
    return found


def write_predictions(path: Path | None, records: Sequence[Mapping[str, Any]]) -> None:
    """Writes predictions as JSONL to standard output, or to a .jsonl or .csv file by its suffix."""
    if path is None:
        for record in records:
            print(json.dumps(record, ensure_ascii=False))
    elif path.suffix.lower() == ".csv":
        _write_csv(path, records)
    else:
        write_atomically(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def _write_csv(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """UTF-8 with BOM, which Excel on Korean Windows opens without broken characters."""
    partial = path.with_name(f".{path.name}.partial")
    with writing("예측 결과를 쓰지 못했습니다", path, partial=partial):
        with partial.open("w", encoding="utf-8-sig", newline="") as file:
            # the first row may be one without text, and so without a prediction
            writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(name for record in records for name in record)))
            writer.writeheader()
            for record in records:
                writer.writerow({name: _csv_cell(value) for name, value in record.items()})
        os.replace(partial, path)


def _csv_cell(value: Any) -> Any:
    """A list or an object as JSON, which reads back, instead of as Python spells it."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
