"""Plain text, one text a line, and how to tell it from a table."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from finetuning.data.formats.base import Source, TextFile, lines_of

_LOOKED_AT = 100


def is_table(path: Path, encoding: str) -> bool:
    """Return whether a file is tab-separated: its first line has tabs, and most of the next hundred have as many.

    A few may differ, so that a table with a ragged line ends in an error that names it, not as plain text.
    """
    with path.open(encoding=encoding) as file:
        tabs = [
            line.count("\t") for line in itertools.islice((line for line in lines_of(file) if line.strip()), _LOOKED_AT)
        ]
    return bool(tabs) and tabs[0] > 0 and 2 * tabs.count(tabs[0]) > len(tabs)


def read(file: TextFile) -> Source:
    """Read every line that is not blank as a row of the column `text`."""
    return Source(file.path, ("text",), _Lines(file.path, file.encoding), file.notes)


class _Lines:
    """A row a line."""

    def __init__(self, path: Path, encoding: str) -> None:
        self.path, self.encoding = path, encoding

    def __iter__(self) -> Iterator[dict[str, str]]:
        with self.path.open(encoding=self.encoding) as file:
            for line in lines_of(file):
                if line.strip():
                    yield {"text": line.rstrip("\r\n")}
