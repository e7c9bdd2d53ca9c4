"""Rows of runs in a file, one JSON object a line.

Commands may add to one file at the same time, and a run that is there need not be made again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def kept(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file, none if there is no file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def keep(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add rows by one write to the file's end, so that those of another command stay whole."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        os.write(file, lines.encode("utf-8"))
    finally:
        os.close(file)
