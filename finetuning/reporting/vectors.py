"""Vectors that `predict` made, as a matrix for NumPy or as a Parquet file beside the columns of their rows."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exceptions import DataError
from finetuning.files import discard, writing
from finetuning.reporting.predictions import put_in_place

if TYPE_CHECKING:
    import pyarrow as pa

_log = logging.getLogger(__name__)
SUFFIXES = (".npy", ".parquet")
_VECTOR = "embedding"  # name of a column of vectors, or its end


def write_vectors(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write vectors as a .npy matrix, a row each, or as a .parquet file with all columns.

    The file is complete or not there at all. A row without text has a vector of NaN in a matrix.

    Args:
        path: The file.
        records: Rows with their vectors.

    Raises:
        DataError: Each row has two vectors, which a matrix cannot hold.
        ResourceError: The disk is full or cannot be written.
    """
    path = path.resolve() if path.is_symlink() else path
    rows = [{name: _held(name, value) for name, value in record.items()} for record in records]
    partial = path.with_name(f".{path.name}.partial")
    try:
        with writing("벡터를 쓰지 못했습니다", path), partial.open("wb") as file:
            if path.suffix.lower() == ".npy":
                np.save(file, _matrix(rows, path))
            else:
                import pyarrow.parquet as pq

                pq.write_table(_table(rows), file)
        put_in_place(partial, path)
    finally:
        discard(partial)
    _log.info("벡터 %s개를 저장했습니다: %s", f"{len(rows):,}", path)


def _held(name: str, value: Any) -> Any:
    """Return a vector as float32: as a list of Python's numbers it takes eight times the memory."""
    return np.array(value, dtype=np.float32) if name.endswith(_VECTOR) and isinstance(value, list) else value


def _vectors(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name, value in row.items() if isinstance(value, np.ndarray)))


def _matrix(rows: list[dict[str, Any]], path: Path) -> np.ndarray:
    """Return the vectors of all rows, (rows, dimensions) float32."""
    names = _vectors(rows)
    if len(names) != 1:
        raise DataError(
            "질문과 문서의 벡터가 둘 다 있어 행렬 하나로 쓸 수 없습니다." if names else "벡터가 하나도 없습니다.",
            where=f"--output {path}",
            remedy="질문이나 문서 가운데 한 열만 있는 파일을 쓰거나, --output을 .parquet으로 쓰세요.",
        )
    width = next(len(row[names[0]]) for row in rows if names[0] in row)
    empty = np.full(width, np.nan, dtype=np.float32)
    return np.stack([row.get(names[0], empty) for row in rows])


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    """Return all columns; those whose values have several types are written as JSON."""
    import pyarrow as pa

    columns = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            columns[name] = pa.array(
                [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
            )
    return pa.table(columns)
