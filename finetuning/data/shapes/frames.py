"""What pandas' `to_json` writes of a table, and a list for each column, as records."""

from __future__ import annotations

from typing import Any

from exceptions import DataError

_SPLIT = frozenset({"columns", "data"})  # `orient="split"`, which has an `index` beside them


def is_split(value: Any) -> bool:
    """Return whether a document has the names of columns beside rows that are lists."""
    return (
        isinstance(value, dict)
        and value.keys() >= _SPLIT
        and all(isinstance(value[key], list) and value[key] for key in _SPLIT)
        and all(isinstance(row, list) for row in value["data"])
    )


def split_records(document: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """Return the rows of `orient="split"`."""
    columns = [str(name) for name in document["columns"]]
    for number, row in enumerate(document["data"], 1):
        if len(row) != len(columns):
            raise DataError(
                f"열이 {len(columns)}개여야 하는데 {len(row)}개입니다.",
                where=f"{where}, data의 {number:,}번째 항목",
                remedy='columns의 이름과 값의 수를 맞추거나, pandas에서 to_json(..., orient="records")로 저장하세요.',
            )
    return [dict(zip(columns, row, strict=True)) for row in document["data"]]


def is_by_label(value: Any) -> bool:
    """Return whether a document is an object of objects with the same keys, and one of both sides are numbers."""
    if not (isinstance(value, dict) and value and all(isinstance(inner, dict) and inner for inner in value.values())):
        return False
    inner = next(iter(value.values())).keys()
    return all(one.keys() == inner for one in value.values()) and (_are_numbers(inner) or _are_numbers(value))


def records_by_label(document: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """Return the rows of `to_json` as it is (columns of rows) and of `orient="index"` (rows of columns)."""
    rows = next(iter(document.values())).keys()
    if not _are_numbers(rows):
        return list(document.values())
    return [{column: cells[row] for column, cells in document.items()} for row in rows]


def is_by_column(value: Any) -> bool:
    """Return whether a document is an object of lists alone, and no list of objects among them is the rows."""
    if not (isinstance(value, dict) and value and all(isinstance(cells, list) and cells for cells in value.values())):
        return False
    of_objects = [isinstance(cells[0], dict) for cells in value.values()]
    return not all(of_objects) and (not any(of_objects) or len(set(map(len, value.values()))) == 1)


def records_by_column(document: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """Return the rows of a list for each column.

    Args:
        document: Column → its values.
        where: The file, for messages.

    Returns:
        The rows.

    Raises:
        DataError: The columns have different numbers of values.
    """
    sizes = {column: len(cells) for column, cells in document.items()}
    if len(set(sizes.values())) > 1:
        counts = ", ".join(f"{column} {count:,}개" for column, count in sizes.items())
        raise DataError(
            f"열마다 값의 수가 다릅니다: {counts}",
            where=where,
            remedy="모든 열의 값을 같은 수로 맞추거나, 행이 될 목록이 따로 있으면 data.records에 경로를 쓰세요.",
        )
    return [dict(zip(document, cells, strict=True)) for cells in zip(*document.values(), strict=True)]


def _are_numbers(keys: Any) -> bool:
    return all(key.isdecimal() for key in keys)
