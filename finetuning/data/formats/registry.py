"""Any local file → rows: one module a format, chosen by looking at the file as well as at its name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from exceptions import DataError
from finetuning.data.formats import delimited, json_records, lines, naver_ner, parquet, spreadsheet, tagged
from finetuning.data.formats.base import Source, with_clean_names
from finetuning.data.formats.encoding import find_encoding

SUFFIXES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".parquet", ".xlsx")
_JSON = frozenset({".json", ".jsonl", ".ndjson"})
_MAGIC = {
    b"PK\x03\x04": ("zip", "압축을 푸세요."),
    b"\xd0\xcf\x11\xe0": (
        "옛 엑셀(.xls)이나 암호가 걸린 엑셀",
        "엑셀에서 열어 암호 없이 .xlsx나 CSV(UTF-8)로 저장하세요.",
    ),
    b"\x1f\x8b": ("gzip", "압축을 푸세요."),
    b"%PDF": ("PDF", "텍스트나 CSV로 저장한 파일을 지정하세요."),
    b"\x89PNG": ("PNG 그림", "텍스트나 CSV 파일을 지정하세요."),
}


def is_supported(path: Path) -> bool:
    """Whether the name says a format that can be read."""
    return path.suffix.casefold() in SUFFIXES


def is_json(path: Path) -> bool:
    """Whether the name says JSON or JSON Lines."""
    return path.suffix.casefold() in _JSON


def open_source(path: Path, encoding: str | None, path_to_records: str | None = None) -> Source:
    """A file's columns and rows; encoding: None finds it by reading. Raises DataError where it cannot be read.

    path_to_records: where the rows of a JSON file are, as `data.records` has it.
    """
    try:
        _check_path(path)
        source = _open(path, encoding, path_to_records)
    except PermissionError as error:
        raise DataError("파일을 읽을 권한이 없습니다.", where=str(path), remedy="읽기 권한을 확인하세요.") from error
    except OSError as error:
        raise DataError(
            f"파일을 읽을 수 없습니다: {error.strerror or error}",
            where=str(path),
            remedy="경로와 디스크의 상태를 확인하세요.",
        ) from error
    columns, rows = with_clean_names(source.columns, source.rows)
    notes = source.notes
    if path_to_records is not None and not is_json(path):
        notes = (*notes, "JSON이 아니어서 data.records를 쓰지 않았습니다.")
    return replace(source, columns=columns, rows=rows, notes=notes)


def _check_path(path: Path) -> None:
    if not path.exists():
        raise DataError(f"파일이 없습니다: {path}", where=str(path), remedy="경로의 철자를 확인하세요.")
    if path.is_dir():
        raise DataError("파일이 아니라 폴더입니다.", where=str(path), remedy="폴더 안의 파일을 지정하세요.")
    if not path.is_file():
        raise DataError(
            "파이프나 장치는 읽을 수 없습니다.", where=str(path), remedy="내용을 파일로 저장해 그 파일을 지정하세요."
        )
    if path.suffix and not is_supported(path):  # a file without one, as Naver's train_data, is told by its content
        raise DataError(
            f"'{path.suffix}' 형식은 읽을 수 없습니다.",
            where=str(path),
            remedy=f"읽을 수 있는 형식: {', '.join(SUFFIXES)}",
        )


def _open(path: Path, encoding: str | None, path_to_records: str | None) -> Source:
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise DataError("빈 파일입니다.", where=str(path), remedy="내용이 있는 파일을 지정하세요.")
    if path.suffix.casefold() == ".parquet" or start == b"PAR1":
        return parquet.read(path)
    if start == b"PK\x03\x04" and spreadsheet.is_spreadsheet(path):
        return spreadsheet.read(path)
    for magic, (name, remedy) in _MAGIC.items():
        if start.startswith(magic):
            raise DataError(
                f"이름은 {path.suffix}이지만 {name} 파일로 보입니다.",
                where=str(path),
                remedy=remedy,
            )
    if path.suffix.casefold() == ".xlsx":
        raise DataError(
            "이름은 .xlsx이지만 엑셀 파일이 아닙니다.",
            where=str(path),
            remedy="텍스트 파일이면 이름을 .csv나 .txt로 끝나게 바꾸고, 아니면 엑셀에서 .xlsx로 다시 저장하세요.",
        )
    found, note = find_encoding(path, encoding)
    notes = (note,) if note else ()
    if is_json(path):
        return json_records.read(path, found, notes, path_to_records)
    if path.suffix.casefold() == ".csv":
        return delimited.read_csv(path, found, notes)
    if tagged.is_tagged(path, found):
        return tagged.read(path, found, notes)
    if naver_ner.is_naver_ner(path, found):
        return naver_ner.read(path, found, notes)
    if path.suffix.casefold() == ".tsv" or lines.is_table(path, found):
        return delimited.read_tsv(path, found, notes)
    return lines.read(path, found, notes)
