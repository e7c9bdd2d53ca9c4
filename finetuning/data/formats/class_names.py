"""Class ids as the names that a dataset's own metadata gives them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

_NO_CLASS = -1  # the label in test splits whose labels are not published, such as GLUE's
_INFO = "dataset_info.json"  # which `datasets` writes beside the files of a dataset that it saves

Classes = Mapping[str, Sequence[str]]
"""Column → names of its classes in the order of their ids, for columns whose cells, or the items of them, are ids."""


def classes_of(schema: pa.Schema, path: Path) -> Classes:
    """Find the names of classes in a file's schema, where `datasets` keeps them, or else in the file beside it.

    Args:
        schema: The file's schema.
        path: The file.

    Returns:
        The names by column; empty where there are none.
    """
    own = _json((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = own.get("info", {}).get("features") if isinstance(own.get("info"), dict) else None
    if features is None:
        beside = information_beside(path)
        features = _json(beside.read_bytes()).get("features") if beside else None
    found = {column: _names(feature) for column, feature in features.items()} if isinstance(features, dict) else {}
    return {column: names for column, names in found.items() if names}


def information_beside(path: Path) -> Path | None:
    """Return the file of a dataset's metadata beside a file of Parquet or Arrow, if there is one."""
    beside = path.with_name(_INFO)
    return beside if path.suffix.casefold() in (".parquet", ".arrow") and beside.is_file() else None


def named(cell: Any, names: Sequence[str]) -> Any:
    """Return the name of a class id, or those of the ids in a list; None for the id of no class."""
    if isinstance(cell, list):
        return [named(item, names) for item in cell]
    if cell == _NO_CLASS:
        return None
    return names[cell] if isinstance(cell, int) and 0 <= cell < len(names) else cell


def _names(feature: Any) -> list[str] | None:
    """Return the names of a ClassLabel, or of a list of them, however a version of `datasets` writes it."""
    if isinstance(feature, list) and len(feature) == 1:
        return _names(feature[0])
    if not isinstance(feature, dict):
        return None
    if feature.get("_type") == "ClassLabel":
        names = feature.get("names")
        return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None
    return _names(feature["feature"]) if "feature" in feature else None


def _json(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
