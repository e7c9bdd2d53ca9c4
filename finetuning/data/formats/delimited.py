"""CSV with quotes, and TSV with or without: published Korean TSV files have bare quotation marks in their texts."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from exceptions import DataError
from finetuning.data.formats.base import LONGEST_LINE, Source, TextFile, check_columns, clean_name, lines_of, titled
from finetuning.data.formats.quotes import are_of_a_writer

Quoting = Literal[0, 1, 2, 3]
_FIELD_LIMIT = LONGEST_LINE  # characters that are read into memory after a quote that is never closed
_SEPARATOR_LINE = re.compile(r'"?sep=([,;|:\t])"?')  # the first line of a file that Excel saved
_INDEX_NAMES = ("", "Unnamed: 0")  # pandas', written with its index and written again
_LOOKED_AT = 100


@dataclass(frozen=True)
class _Dialect:
    """How a file is divided into fields.

    Attributes:
        delimiter: The character between fields.
        quoting: csv.QUOTE_MINIMAL, or csv.QUOTE_NONE where quotation marks are text.
        skipped: Number of lines before the header.
    """

    delimiter: str
    quoting: Quoting
    skipped: int = 0


def read_csv(file: TextFile) -> Source:
    """Read a file with a header row, separated by commas, or by `;` or tabs if the header has those and no comma.

    A first line `sep=;`, as Excel writes it, names the separator.
    """
    with file.path.open(encoding=file.encoding, newline="") as opened:
        number, header = next(((n, line) for n, line in enumerate(lines_of(opened), 1) if line.strip()), (1, ""))
    if named := _SEPARATOR_LINE.fullmatch(header.rstrip("\r\n")):
        note = f"구분 문자를 정하는 {number:,}번째 줄(sep={named[1]})은 데이터가 아니어서 뺐습니다."
        return _read(file, _Dialect(named[1], csv.QUOTE_MINIMAL, number), (*file.notes, note))
    unquoted = re.sub(r'"[^"]*"', "", header)
    delimiter = next((mark for mark in ",;\t" if mark in unquoted), ",")
    return _read(file, _Dialect(delimiter, csv.QUOTE_MINIMAL), file.notes)


def read_tsv(file: TextFile) -> Source:
    """Read a tab-separated file with a header row; quotation marks are text unless all are a program's."""
    if are_of_a_writer(file.path, file.encoding):
        note = "값을 감싼 큰따옴표를 제거하고 읽었습니다."
        return _read(file, _Dialect("\t", csv.QUOTE_MINIMAL), (*file.notes, note))
    return _read(file, _Dialect("\t", csv.QUOTE_NONE), file.notes)


def _read(file: TextFile, dialect: _Dialect, notes: Sequence[str]) -> Source:
    path, rows = file.path, _rows(file.path, file.encoding, dialect)
    header = next(rows, None)
    if header is None:
        raise DataError("빈 파일입니다.", where=str(path), remedy="첫 줄에 열 이름이 있는 파일을 지정하세요.")
    line, names = header[0], [clean_name(name) for name in header[1]]
    first = [fields for _, fields in itertools.islice(rows, _LOOKED_AT)]
    if not first:
        raise DataError(
            "열 이름만 있고 데이터가 없는 빈 파일입니다.",
            where=str(path),
            remedy="첫 줄이 열 이름이고 그 아래에 데이터가 있는 파일을 지정하세요.",
        )
    named = _named_columns(names)
    if named == 1 and _is_a_table(first):
        quotes = " 열이 하나이고 값에 쉼표가 있으면, 그 값을 큰따옴표로 감싸세요." if dialect.delimiter == "," else ""
        raise titled(names[0], f"{path}, {line:,}번째 줄", quotes)
    columns = dict(enumerate(names[:named]))
    told = [*notes]
    if len(columns) > 1 and names[0] in _INDEX_NAMES and all(fields[0].strip().isdecimal() for fields in first):
        del columns[0]
        told.append("이름 없이 번호만 있는 첫 열(pandas의 index)을 뺐습니다.")
    if unnamed := len(names) - named:
        told.append(f"이름도 값도 없는 마지막 열 {unnamed}개를 뺐습니다.")
    check_columns(tuple(columns.values()), f"{path}, {line:,}번째 줄", [header[1][position] for position in columns])
    return Source(path, tuple(columns.values()), _Records(path, file.encoding, dialect, columns), tuple(told))


def _is_a_table(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether rows have one width of two or more, and values in several columns, but for blank ones."""
    filled = [fields for fields in rows if any(map(str.strip, fields))]
    has_one_width = len(filled) > 1 and len({len(fields) for fields in filled}) == 1
    return has_one_width and sum(bool(field.strip()) for field in filled[0]) > 1


def _named_columns(names: Sequence[str]) -> int:
    """Return the number of columns without those at the end that have no name; all where none has one."""
    return max((position + 1 for position, name in enumerate(names) if name), default=len(names))


@dataclass(frozen=True)
class _Records:
    """The rows below the header.

    Attributes:
        path: The file.
        encoding: Its encoding.
        dialect: How it is divided.
        columns: Position → name, of the columns to read.
    """

    path: Path
    encoding: str
    dialect: _Dialect
    columns: dict[int, str]

    def __iter__(self) -> Iterator[dict[str, str]]:
        rows = _rows(self.path, self.encoding, self.dialect)
        width = len(next(rows, (0, []))[1])
        needed = max(self.columns) + 1
        for line, fields in rows:
            if len(fields) != needed and (len(fields) < needed or any(map(str.strip, fields[needed:]))):
                raise self._ragged(line, fields, needed, width)
            yield {name: fields[position] for position, name in self.columns.items()}

    def _ragged(self, line: int, fields: Sequence[str], needed: int, width: int) -> DataError:
        where = f"{self.path}, {line:,}번째 줄"
        if needed <= len(fields) <= width:
            found = next(field for field in fields[needed:] if field.strip())
            return DataError(
                f"이름이 빈 열에 값이 있습니다: {found[:30]}",
                where=where,
                remedy="첫 줄에 열 이름을 쓰거나 값을 지우세요. pandas에서는 to_csv(..., index=False)로 저장하세요.",
            )
        delimiter = self.dialect.delimiter
        mark = "tab" if delimiter == "\t" else f"'{delimiter}'"
        quotes = "" if self.dialect.quoting == csv.QUOTE_NONE else ' 값 안에 있으면 값을 큰따옴표(")로 감싸세요.'
        return DataError(
            f"열이 {needed}개여야 하는데 {len(fields)}개입니다.",
            where=where,
            remedy=f"그 줄의 구분 문자 {mark}의 수를 확인하세요.{quotes}",
        )


def _rows(path: Path, encoding: str, dialect: _Dialect) -> Iterator[tuple[int, list[str]]]:
    """Yield the first line's number and the fields of each row that is not blank."""
    csv.field_size_limit(max(csv.field_size_limit(), _FIELD_LIMIT))
    delimiter, quoting, skipped = dialect.delimiter, dialect.quoting, dialect.skipped
    with path.open(encoding=encoding, newline="") as file:
        lines = itertools.islice(lines_of(file), skipped, None)
        reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=quoting != csv.QUOTE_NONE)
        begin = skipped + 1
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
            begin = skipped + reader.line_num + 1


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
