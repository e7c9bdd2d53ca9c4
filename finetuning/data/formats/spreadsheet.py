"""Excel's .xlsx, through openpyxl: the first sheet that holds a table."""

from __future__ import annotations

import datetime
import itertools
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from exceptions import DataError, first_line_of
from finetuning.data.formats.base import Source, check_columns, clean_name, titled

_WORKBOOK = "xl/workbook.xml"
_LAST_ROW = 1_048_576  # of a sheet, as Excel has them
_LONGEST_CELL = 1 << 20  # bytes of its XML; Excel has at most 32,767 characters in a cell
_MOST_UNPACKED, _HARMLESS = 4 << 30, 256 << 20  # bytes
_HIGHEST_RATIO = 200  # of unpacked bytes to packed ones
_CHUNK = 1 << 20
_LOOKED_AT = 100  # rows; a program that stores no results stores none at all
_STORE_RESULTS = "엑셀에서 파일을 열어 다시 저장하거나, 그 열을 복사해 값으로 붙여 넣으세요."


def is_spreadsheet(path: Path, start: bytes) -> bool:
    """Return whether a file is an .xlsx, whatever its name; start: its first four bytes."""
    if start != b"PK\x03\x04":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return _WORKBOOK in archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return False


def read(path: Path) -> Source:
    """Read the rows below the first that is not blank, which names the columns; formulas as last computed."""
    with _opened(path) as book:
        found = [
            (sheet.title, header) for sheet in book.worksheets if (header := next(_rows(path, sheet), None)) is not None
        ]
        if not found:
            raise DataError("빈 엑셀 파일입니다.", where=str(path), remedy="첫 줄에 열 이름이 있는 시트를 넣으세요.")
        title, (number, cells) = found[0]
        written = [_as_text(cell) for cell in _trimmed(cells)]
        columns = tuple(map(clean_name, written))
        where = f"{path}, {title} 시트 {number:,}번째 줄"
        below = next(itertools.islice(_rows(path, book[title]), 1, None), None)
        if len(columns) == 1 and below is not None and sum(bool(_as_text(cell).strip()) for cell in below[1]) > 1:
            raise titled(columns[0], where)
        check_columns(columns, where, written)
        formulas = _without_results(path, book[title], number, columns)
        if next(_records(path, book[title], columns), None) is None:
            if formulas:
                raise DataError(formulas, where=f"{path}, {title} 시트", remedy=_STORE_RESULTS)
            raise DataError(
                "열 이름만 있고 데이터가 없습니다.",
                where=f"{path}, {title} 시트",
                remedy="첫 줄이 열 이름이고 그 아래에 데이터가 있는 시트를 맨 앞에 두세요.",
            )
    others = [other for other, _ in found[1:]]
    notes = [f"시트 '{title}'만 읽었습니다(읽지 않은 시트: {', '.join(others)})."] if others else []
    notes += [f"{formulas} {_STORE_RESULTS}"] if formulas else []
    return Source(path, columns, _Records(path, title, columns), tuple(notes))


def _without_results(path: Path, sheet: Any, header: int, columns: tuple[str, ...]) -> str:
    """Say which columns hold formulas whose results are not stored, as programs other than Excel write them; else "".

    Args:
        path: The workbook.
        sheet: Its sheet, opened for results.
        header: Number of the row of the names.
        columns: The names.

    Returns:
        A Korean sentence, or "".
    """
    from openpyxl.cell.read_only import EMPTY_CELL

    sheet.reset_dimensions()
    looked_at = {"min_row": header + 1, "max_row": header + _LOOKED_AT, "max_col": len(columns)}
    bare = {
        (row, column)
        for row, cells in enumerate(sheet.iter_rows(**looked_at))
        for column, cell in enumerate(cells)
        if cell is not EMPTY_CELL and cell.value is None and cell.data_type != "str"  # "": a result of Excel's
    }
    if not bare:
        return ""
    with _opened(path, data_only=False) as book:
        book[sheet.title].reset_dimensions()
        rows = enumerate(book[sheet.title].iter_rows(**looked_at))
        found = {
            column
            for row, cells in rows
            for column, cell in enumerate(cells)
            if (row, column) in bare and cell.value is not None
        }
    names = ", ".join(f"'{columns[column]}'" for column in sorted(found))
    return f"{names} 열의 칸이 수식인데, 그 결과가 파일에 저장되어 있지 않아 빈칸으로 읽힙니다." if names else ""


class _Records:
    """The rows below the header."""

    def __init__(self, path: Path, title: str, columns: tuple[str, ...]) -> None:
        self.path, self.title, self.columns = path, title, columns

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with _opened(self.path) as book:
            yield from _records(self.path, book[self.title], self.columns)


@contextmanager
def _opened(path: Path, data_only: bool = True) -> Iterator[Any]:
    """Open a workbook to stream its rows; DataError where it is broken or locked by a password.

    Args:
        path: The workbook.
        data_only: Whether a formula's cell has its stored result, and not the formula.

    Yields:
        The workbook.
    """
    import openpyxl

    with path.open("rb") as file:
        _check_size(path)
        try:
            book = openpyxl.load_workbook(file, read_only=True, data_only=data_only)
        except Exception as error:  # openpyxl raises many kinds of errors over a broken file
            raise _broken(path, error) from None
        try:
            yield book
        except (zipfile.BadZipFile, KeyError, ValueError, SyntaxError) as error:  # a sheet that breaks off
            raise _broken(path, error) from None
        finally:
            book.close()


def _check_size(path: Path) -> None:
    """Raise DataError for a workbook that a few bytes make huge, before it is unpacked into memory.

    A ZIP's own record of a size is an upper bound: no more than that is read from it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            parts = [part for part in archive.infolist() if part.filename.endswith(".xml")]
            unpacked = sum(part.file_size for part in parts)
            ratio = unpacked / max(1, sum(part.compress_size for part in parts))
            if unpacked > _MOST_UNPACKED or (unpacked > _HARMLESS and ratio > _HIGHEST_RATIO):
                raise DataError(
                    f"압축을 풀면 {unpacked / 2**30:,.1f} GiB나 되어 읽지 않습니다.",
                    where=str(path),
                    remedy="믿을 수 있는 파일이면 엑셀에서 열어 CSV로 저장해 쓰세요.",
                )
            for part in parts:
                _check_cells(path, archive, part)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, zlib.error) as error:
        raise _broken(path, error) from None


def _check_cells(path: Path, archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> None:
    """Raise DataError where a part of a workbook has a longer text between two tags than any cell has."""
    if part.file_size <= _LONGEST_CELL:
        return
    length = 0  # since the last tag began
    with archive.open(part) as file:
        while chunk := file.read(_CHUNK):
            *within, last = chunk.split(b"<")
            length = len(last) if within else length + len(last)
            if length > _LONGEST_CELL:
                raise DataError(
                    f"칸 하나가 {_LONGEST_CELL:,}바이트를 넘습니다.",
                    where=f"{path}, {part.filename}",
                    remedy="엑셀의 칸에는 32,767자까지 들어갑니다. 긴 글은 JSONL이나 CSV로 저장해 쓰세요.",
                )


def _rows(path: Path, sheet: Any) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Yield the number and the cells of each row that is not blank."""
    sheet.reset_dimensions()  # other programs write wrong ones
    for number, cells in enumerate(sheet.iter_rows(values_only=True), 1):
        if number > _LAST_ROW:
            raise DataError(
                f"행의 번호가 엑셀의 마지막 행({_LAST_ROW:,})을 넘습니다.",
                where=f"{path}, {sheet.title} 시트",
                remedy="깨진 파일입니다. 엑셀에서 열리는지 확인하고 다시 저장하세요.",
            )
        if any(_as_text(cell).strip() for cell in cells):
            yield number, cells


def _records(path: Path, sheet: Any, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    rows = _rows(path, sheet)
    next(rows, None)
    for number, cells in rows:
        beyond = next((cell for cell in cells[len(columns) :] if _as_text(cell).strip()), None)
        if beyond is not None:
            raise DataError(
                f"열 이름이 없는 칸에 값이 있습니다: {_as_text(beyond)[:30]}",
                where=f"{path}, {sheet.title} 시트 {number:,}번째 줄",
                remedy="그 값을 지우거나 첫 줄에 열 이름을 쓰세요.",
            )
        values = [_plain(cell) for cell in cells[: len(columns)]]
        yield dict(zip(columns, [*values, *[None] * (len(columns) - len(values))], strict=True))


def _trimmed(cells: tuple[Any, ...]) -> tuple[Any, ...]:
    """Drop blank cells at the end."""
    last = max(position for position, cell in enumerate(cells) if _as_text(cell).strip())
    return cells[: last + 1]


def _plain(cell: Any) -> Any:
    """Convert a cell to a JSON value; dates become text, without the midnight that Excel stores with them."""
    if isinstance(cell, datetime.datetime) and cell.time() == datetime.time():
        cell = cell.date()
    return _as_text(cell) if isinstance(cell, datetime.date | datetime.time | datetime.timedelta) else cell


def _as_text(cell: Any) -> str:
    return "" if cell is None else str(cell)


def _broken(path: Path, error: Exception) -> DataError:
    return DataError(
        f"엑셀(.xlsx) 파일로 읽을 수 없습니다: {first_line_of(error)}",
        where=str(path),
        remedy="암호가 걸려 있지 않은지, 엑셀에서 열리는지 확인하고 다시 저장하세요.",
    )
