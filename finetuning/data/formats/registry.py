"""Every file format that can be read: one row a format, chosen by the file's content as well as by its name.

To add a format, write a module with `read` and, if the name does not tell, a function that looks at the content; then
add a row below. The first row that matches a file reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from exceptions import DataError
from finetuning.data.formats import (
    delimited,
    dependencies,
    json_records,
    lines,
    naver_ner,
    parquet,
    spreadsheet,
    tagged,
)
from finetuning.data.formats.base import Source, TextFile, with_clean_names
from finetuning.data.formats.encoding import find_encoding
from finetuning.files import on_windows, similar_name


@dataclass(frozen=True)
class BinaryFormat:
    """A binary format.

    Attributes:
        suffixes: Suffixes of its files' names, in lower case.
        matches: (path, the file's first four bytes) → whether a file has this format.
        read: Reads a file.
    """

    suffixes: tuple[str, ...]
    matches: Callable[[Path, bytes], bool]
    read: Callable[[Path], Source]


@dataclass(frozen=True)
class TextFormat:
    """A format of text files, whose encoding has been found.

    Attributes:
        suffixes: Suffixes of its files' names, in lower case.
        matches: Whether a file of any other name has this format, by its content.
        read: Reads a file.
    """

    suffixes: tuple[str, ...]
    matches: Callable[[Path, str], bool]
    read: Callable[[TextFile], Source]


def _by_name_alone(path: Path, encoding: str) -> bool:
    return False


def _any_text(path: Path, encoding: str) -> bool:
    return True


_BINARY = (
    BinaryFormat((".parquet",), parquet.is_parquet, parquet.read),
    BinaryFormat((".arrow",), parquet.is_arrow, parquet.read_arrow),
    BinaryFormat((".xlsx",), spreadsheet.is_spreadsheet, spreadsheet.read),
)
_TEXT = (
    TextFormat((".csv",), _by_name_alone, delimited.read_csv),
    TextFormat(json_records.SUFFIXES, _by_name_alone, json_records.read),
    TextFormat(tagged.SUFFIXES, tagged.is_tagged, tagged.read),
    TextFormat((), naver_ner.is_naver_ner, naver_ner.read),
    TextFormat((), dependencies.is_parsed, dependencies.read),
    TextFormat((".tsv",), lines.is_table, delimited.read_tsv),
    TextFormat((".txt",), _any_text, lines.read),
)
_NOT_DOWNLOADED = "데이터 대신 오류나 로그인 페이지가 저장되었는지 편집기로 열어 확인하고 다시 내려받으세요."
_FOREIGN = {  # first bytes, in lower case for text → the format as messages name it, and what to do
    b"PK\x03\x04": ("zip", "압축을 푸세요."),
    b"\xd0\xcf\x11\xe0": (
        "구버전 엑셀(.xls)이나 암호가 걸린 엑셀",
        "엑셀에서 열어 암호 없이 .xlsx나 CSV(UTF-8)로 저장하세요.",
    ),
    b"\x1f\x8b": ("gzip", "압축을 푸세요."),
    b"%PDF": ("PDF", "텍스트나 CSV로 저장한 파일을 지정하세요."),
    b"\x89PNG": ("PNG 그림", "텍스트나 CSV 파일을 지정하세요."),
    b"SQLite format 3\0": ("SQLite 데이터베이스", "표를 CSV로 저장한 파일을 지정하세요."),
    b"version https://git-lfs": (
        "Git LFS의 포인터",
        "데이터는 아직 내려받지 않았습니다. 저장소의 폴더에서 git lfs pull을 실행하세요.",
    ),
    b"<!doctype html": ("웹 페이지(HTML)", _NOT_DOWNLOADED),
    b"<html": ("웹 페이지(HTML)", _NOT_DOWNLOADED),
}
_LOOKED_AT = 64  # bytes
_ADVICE = {  # what to do about files of common formats that cannot be read, by suffix
    **dict.fromkeys((".xls", ".xlsm", ".xlsb", ".ods", ".numbers"), "엑셀에서 열어 .xlsx나 CSV(UTF-8)로 저장하세요. "),
    **dict.fromkeys((".zip", ".gz", ".tar", ".7z"), "압축을 풀고 그 안의 파일을 지정하세요. "),
    **dict.fromkeys((".hwp", ".hwpx", ".doc", ".docx", ".pdf"), "내용을 CSV나 텍스트 파일로 저장해 지정하세요. "),
}
SUFFIXES = tuple(suffix for row in (*_TEXT, *_BINARY) for suffix in row.suffixes)


def is_supported(path: Path) -> bool:
    """Return whether a file's name has the suffix of a format that can be read."""
    return path.suffix.casefold() in SUFFIXES


def is_json(path: Path) -> bool:
    """Return whether a file's name has a suffix of JSON or JSON Lines."""
    return path.suffix.casefold() in json_records.SUFFIXES


def open_source(path: Path, encoding: str | None, path_to_records: str | None = None) -> Source:
    """Open a file as columns and rows.

    Args:
        path: The file.
        encoding: Its encoding; None finds it by reading the file.
        path_to_records: `data.records`, the way to the rows of a JSON file.

    Returns:
        The columns, and the rows as an iterable that can be read again.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        check_path(path)
        source = _open(path, encoding, path_to_records)
    except PermissionError as error:
        others = "이 파일을 연 프로그램(엑셀 등)이 있으면 닫고, " if on_windows() else ""
        remedy = f"{others}읽기 권한을 확인하세요."
        raise DataError("파일을 읽을 권한이 없습니다.", where=str(path), remedy=remedy) from error
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


def check_path(path: Path) -> None:
    """Raise DataError for a path that is no file to read, and say what it is."""
    if not path.exists():
        if path.is_symlink():
            raise DataError(
                f"가리키는 파일이 없는 링크입니다: {path} → {path.readlink()}",
                where=str(path),
                remedy="링크를 다시 만들거나 원래 파일을 지정하세요.",
            )
        raise DataError(
            f"파일이 없습니다: {path}",
            where=str(path),
            remedy=f"{similar_name(path)}경로의 철자를 확인하세요. 지금 폴더는 {Path.cwd()}입니다.",
        )
    if path.is_dir():
        raise DataError("파일이 아니라 폴더입니다.", where=str(path), remedy="폴더 안의 파일을 지정하세요.")
    if not path.is_file():
        raise DataError(
            "파이프나 장치는 읽을 수 없습니다.", where=str(path), remedy="내용을 파일로 저장해 그 파일을 지정하세요."
        )
    if path.suffix and not is_supported(path):  # files without a suffix, as Naver's train_data, go by their content
        raise DataError(
            f"'{path.suffix}' 형식은 읽을 수 없습니다.",
            where=str(path),
            remedy=f"{_ADVICE.get(path.suffix.casefold(), '')}읽을 수 있는 형식: {', '.join(SUFFIXES)}",
        )


def _open(path: Path, encoding: str | None, path_to_records: str | None) -> Source:
    with path.open("rb") as opened:
        start = opened.read(_LOOKED_AT)
    if not start:
        raise DataError("빈 파일입니다.", where=str(path), remedy="내용이 있는 파일을 지정하세요.")
    for binary in _BINARY:
        if binary.matches(path, start[:4]):
            return binary.read(path)
    _check_is_text(path, start)
    found, note = find_encoding(path, encoding)
    suffix, file = path.suffix.casefold(), TextFile(path, found, (note,) if note else (), path_to_records)
    return next(text for text in _TEXT if suffix in text.suffixes or text.matches(path, found)).read(file)


def _check_is_text(path: Path, start: bytes) -> None:
    for magic, (name, remedy) in _FOREIGN.items():
        if start.startswith(magic) or start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(magic):
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
