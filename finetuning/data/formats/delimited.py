"""CSV with quotes, and TSV without: published Korean TSV files have bare quotation marks in their texts."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from exceptions import DataError
from finetuning.data.formats.base import LONGEST_LINE, Source, TextFile, check_columns, clean_name, lines_of

Quoting = Literal[0, 1, 2, 3]
_FIELD_LIMIT = LONGEST_LINE  # characters that are read into memory after a quote that is never closed


def read_csv(file: TextFile) -> Source:
    """Read a file with a header row, separated by commas, or by `;` or tabs if the header has those and no comma."""
    with file.path.open(encoding=file.encoding, newline="") as opened:
        header = next((line for line in lines_of(opened) if line.strip()), "")
    unquoted = re.sub(r'"[^"]*"', "", header)
    delimiter = next((mark for mark in ",;\t" if mark in unquoted), ",")
    return _read(file, delimiter, csv.QUOTE_MINIMAL)


def read_tsv(file: TextFile) -> Source:
    """Read a tab-separated file with a header row; quotation marks are text."""
    return _read(file, "\t", csv.QUOTE_NONE)


def _read(file: TextFile, delimiter: str, quoting: Quoting) -> Source:
    path, rows = file.path, _rows(file.path, file.encoding, delimiter, quoting)
    header = next(rows, None)
    if header is None:
        raise DataError("빈 파일입니다.", where=str(path), remedy="첫 줄에 열 이름이 있는 파일을 지정하세요.")
    line, columns = header[0], [clean_name(name) for name in header[1]]
    check_columns(columns, f"{path}, {line:,}번째 줄")
    if next(rows, None) is None:
        raise DataError(
            "열 이름만 있고 데이터가 없는 빈 파일입니다.",
            where=str(path),
            remedy="첫 줄이 열 이름이고 그 아래에 데이터가 있는 파일을 지정하세요.",
        )
    return Source(path, tuple(columns), _Records(path, file.encoding, delimiter, quoting, tuple(columns)), file.notes)


class _Records:
    """The rows below the header."""

    def __init__(self, path: Path, encoding: str, delimiter: str, quoting: Quoting, columns: tuple[str, ...]) -> None:
        self.path, self.encoding, self.delimiter, self.quoting = path, encoding, delimiter, quoting
        self.columns = columns

    def __iter__(self) -> Iterator[dict[str, str]]:
        rows = _rows(self.path, self.encoding, self.delimiter, self.quoting)
        next(rows, None)
        for line, fields in rows:
            if len(fields) != len(self.columns):
                mark = "tab" if self.delimiter == "\t" else f"'{self.delimiter}'"
                quotes = "" if self.quoting == csv.QUOTE_NONE else ' 값 안에 있으면 값을 큰따옴표(")로 감싸세요.'
                raise DataError(
                    f"열이 {len(self.columns)}개여야 하는데 {len(fields)}개입니다.",
                    where=f"{self.path}, {line:,}번째 줄",
                    remedy=f"그 줄의 구분 문자 {mark}의 수를 확인하세요.{quotes}",
                )
            yield dict(zip(self.columns, fields, strict=True))


def _rows(path: Path, encoding: str, delimiter: str, quoting: Quoting) -> Iterator[tuple[int, list[str]]]:
    """Yield the first line's number and the fields of each row that is not blank."""
    csv.field_size_limit(max(csv.field_size_limit(), _FIELD_LIMIT))
    with path.open(encoding=encoding, newline="") as file:
        reader = csv.reader(lines_of(file), delimiter=delimiter, quoting=quoting, strict=quoting != csv.QUOTE_NONE)
        begin = 1
        while True:
            try:
                fields = next(reader, None)
            except csv.Error as error:
                what, line = _explain(error), begin
                if "unexpected end of data" in str(error):
                    line = _unclosed_line(path, encoding, delimiter, begin)
                raise DataError(
                    what,
                    where=f"{path}, {line:,}번째 줄부터",
                    remedy='값 안의 큰따옴표는 두 번("") 쓰고, 값 전체를 큰따옴표로 감싸세요.',
                ) from None
            if fields is None:
                return
            is_blank = not fields or (len(fields) == 1 and fields[0].isspace())
            if not is_blank:
                yield begin, fields
            begin = reader.line_num + 1


def _explain(error: csv.Error) -> str:
    text = str(error)
    if "unexpected end of data" in text:
        return "닫히지 않은 큰따옴표가 있습니다."
    if "expected after" in text:
        return "닫는 큰따옴표 바로 뒤에 다른 글자가 있습니다."
    if "field limit" in text:
        return f"값 하나가 {_FIELD_LIMIT:,}자를 넘습니다. 큰따옴표가 닫히지 않은 것 같습니다."
    return f"CSV로 읽을 수 없습니다: {text}"


def _unclosed_line(path: Path, encoding: str, delimiter: str, begin: int) -> int:
    """Find the line where an unclosed quoted field begins: the last field of the row that begins at line `begin`."""
    with path.open(encoding=encoding, newline="") as file:
        reader = csv.reader(itertools.islice(lines_of(file), begin - 1, None), delimiter=delimiter)
        field = next(reader)[-1]
        spanned = sum(1 for _ in io.StringIO(field, newline=""))
        return begin + reader.line_num - max(spanned, 1)
