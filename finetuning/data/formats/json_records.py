"""JSON and JSON Lines, distinguished by content: an array, an object that holds one, or one object a line."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from exceptions import DataError
from finetuning.data.formats.base import LONGEST_LINE, Source, TextFile, lines_of
from finetuning.data.shapes import record_path
from finetuning.data.shapes.registry import flat_records
from finetuning.korean.particles import with_particle

SUFFIXES = (".json", ".jsonl", ".ndjson")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_PAIRS = "따옴표, 쉼표, 괄호의 짝을 확인하세요."
_MISTAKES = (  # how the message of Python's reader begins, what it means
    ("Expecting ':'", "키 뒤에 콜론(:)이 없습니다."),
    ("Expecting ','", '쉼표나 닫는 괄호가 없거나, 문자열 안의 큰따옴표를 \\"로 쓰지 않았습니다.'),
    ("Expecting property name", "키를 큰따옴표로 감싸지 않았거나, 마지막 값 뒤에 쉼표가 있습니다."),
    ("Illegal trailing comma", "마지막 값 뒤에 쉼표가 있습니다."),
    ("Expecting value", '값이 없거나(마지막 값 뒤의 쉼표 등), 문자열을 곧은 큰따옴표(")로 감싸지 않았습니다.'),
    ("Unterminated string", "큰따옴표가 닫히지 않았습니다."),
    ("Extra data", "값이 끝난 뒤에 다른 글자가 있습니다(줄 끝의 쉼표 등)."),
)
_CONTROLS = {"\n": ("줄바꿈이", "\\n"), "\r": ("줄바꿈(CR)이", "\\r"), "\t": ("탭이", "\\t")}


def read(file: TextFile) -> Source:
    """Read a file's records; the columns are all of their keys, in order of first appearance.

    With `path_to_records`, JSON Lines are a list of their lines.
    """
    path, encoding, notes, path_to_records = file.path, file.encoding, file.notes, file.path_to_records
    lines = _Lines(path, encoding) if _is_json_lines(path, encoding) else None
    records: Iterable[dict[str, Any]]
    if path_to_records is not None:
        value = list(lines) if lines else _parse(path.read_text(encoding=encoding), str(path))
        records, note = record_path.records(value, path_to_records, str(path))
        notes = (*notes, note) if note else notes
    else:
        records = lines or _whole(path, encoding)
    columns: dict[str, None] = {}
    for record in records:
        columns.update(dict.fromkeys(record))
    if not columns:
        raise DataError("데이터가 비어 있습니다.", where=str(path), remedy="내용이 있는 파일을 지정하세요.")
    return Source(path, tuple(columns), _Filled(records, tuple(columns)), notes)


def _is_json_lines(path: Path, encoding: str) -> bool:
    """Return whether one of the first two lines that are not blank is a whole object, and not all of a .json file."""
    with path.open(encoding=encoding) as file:  # a .json file may be one long line
        is_whole = path.suffix.casefold() == ".json"
        lines = iter(lambda: file.readline(LONGEST_LINE), "") if is_whole else lines_of(file)
        first, second = [*itertools.islice((line for line in lines if line.strip()), 2), "", ""][:2]
    if first.lstrip().startswith("["):
        return False
    if _is_object(first):
        return bool(second) or not is_whole
    return _is_object(second)


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


class _Filled:
    """The records with every column; None where a record lacks the key."""

    def __init__(self, records: Iterable[dict[str, Any]], columns: tuple[str, ...]) -> None:
        self.records, self.columns = records, columns

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for record in self.records:
            yield {column: record.get(column) for column in self.columns}


class _Lines:
    """An object a line."""

    def __init__(self, path: Path, encoding: str) -> None:
        self.path, self.encoding = path, encoding

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with self.path.open(encoding=self.encoding) as file:
            for number, line in enumerate(lines_of(file), 1):
                if not line.strip():
                    continue
                value = _parse(line, f"{self.path}, {number:,}번째 줄")
                if not isinstance(value, dict):
                    raise _not_an_object(value, f"{self.path}, {number:,}번째 줄")
                yield value


def _whole(path: Path, encoding: str) -> list[dict[str, Any]]:
    """Read the records of a known shape, of an array, or of an object's one list of objects, as KLUE is published."""
    value = _parse(path.read_text(encoding=encoding), str(path))
    if (records := flat_records(value, str(path))) is not None:
        return records
    if isinstance(value, dict):
        lists = {
            key: item for key, item in value.items() if isinstance(item, list) and item and isinstance(item[0], dict)
        }
        if len(lists) != 1:
            raise DataError(
                f"행이 될 목록을 고를 수 없습니다. 객체의 목록인 키: {', '.join(lists) or '없음'}",
                where=str(path),
                remedy="data.records에 행까지의 경로를 쓰거나(예: data[*].paragraphs[*]), "
                '[{"text": ..., "label": ...}, ...] 형식이나 JSONL(한 줄에 객체 하나)로 바꾸세요.',
            )
        value = next(iter(lists.values()))
    if not isinstance(value, list):
        raise _not_an_object(value, str(path))
    for number, record in enumerate(value, 1):
        if not isinstance(record, dict):
            raise _not_an_object(record, f"{path}, {number:,}번째 항목")
    return value


class _RepeatedKeyError(Exception):
    """An object has a key twice, of which Python's reader would silently drop one."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKeyError(f"'{next(key for key in keys if keys.count(key) > 1)}'")
    return value


def _parse(text: str, where: str) -> Any:
    try:
        value = json.loads(text, object_pairs_hook=_object)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()  # half of a pair is no character, and cannot be written
        return value
    except _RepeatedKeyError as error:
        raise DataError(
            f"한 객체에 {error} 키가 두 번 있습니다.",
            where=where,
            remedy="둘 가운데 하나만 남기세요. 어느 값이 맞는지 알 수 없어 읽지 않습니다.",
        ) from None
    except UnicodeEncodeError:
        raise DataError(
            "짝이 없는 surrogate(\\ud800 같은 escape)가 있습니다.",
            where=where,
            remedy="글자가 중간에 잘린 값인지 확인하고 고치세요.",
        ) from None
    except json.JSONDecodeError as error:
        if not text.strip():
            raise DataError("공백뿐인 빈 파일입니다.", where=where, remedy="내용이 있는 파일을 지정하세요.") from None
        is_line = "번째 줄" in where
        column = min(error.pos, len(text.rstrip())) + 1 if is_line else error.colno
        place = f"{where} {column:,}번째 칸" if is_line else f"{where}, {error.lineno:,}번째 줄 {column:,}번째 칸"
        said, remedy = _mistake(error)
        raise DataError(f"JSON 문법 오류입니다: {said}", where=place, remedy=remedy) from None
    except (RecursionError, ValueError):
        raise DataError(
            "JSON의 중첩이 너무 깊거나 숫자가 너무 큽니다.",
            where=where,
            remedy="중첩되지 않은 객체의 목록으로 바꾸세요.",
        ) from None


def _mistake(error: json.JSONDecodeError) -> tuple[str, str]:
    """Return what Python's reader of JSON found, in Korean where it is a usual mistake, and what to do about it."""
    if not error.doc[error.pos :].strip():
        return "값이 끝나기 전에 끊겼습니다.", _PAIRS
    if error.msg.startswith("Invalid control character"):
        found = error.doc[error.pos]
        name, written = _CONTROLS.get(found, (f"제어 문자(U+{ord(found):04X})가", f"\\u{ord(found):04x}"))
        return f"문자열 안에 {name} 그대로 있습니다.", f"{with_particle(written, '으로/로')} 쓰거나 지우세요."
    if error.msg.startswith("Invalid \\"):
        return "문자열 안에 잘못된 역슬래시(\\)가 있습니다.", "역슬래시를 글자로 쓰려면 두 번(\\\\) 쓰세요."
    return next((said for start, said in _MISTAKES if error.msg.startswith(start)), error.msg), _PAIRS


def _not_an_object(value: Any, where: str) -> DataError:
    return DataError(
        f"객체가 아니라 {type(value).__name__} 값이 있습니다.",
        where=where,
        remedy='행마다 {"text": ..., "label": ...}처럼 쓰세요.',
    )
