"""What reading a file gives: its columns and its rows, streamed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Source:
    """One file as rows. notes: what a person should know about how it was read, a line each."""

    path: Path
    columns: tuple[str, ...]
    rows: Iterable[Mapping[str, Any]]
    notes: tuple[str, ...] = ()
