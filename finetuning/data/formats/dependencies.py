"""A word of a parsed sentence a line, a blank line between sentences: KLUE-DP as published.

The six columns are separated by tabs: the word's number, the word, its morphemes, their parts of speech, the number of
its head (0 for the root) and the relation to it. Files for a competition lack the last two.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exceptions import DataError
from finetuning.data.formats.base import Source, TextFile, lines_of

# The Hub's names (klue, config dp).
_COLUMNS = ("index", "word_form", "lemma", "pos", "head", "deprel")
_NUMBERS = frozenset({"index", "head"})
_DIGITS = 9  # of the longest number
_PARTS = re.compile(r"[A-Z]+(\+[A-Z]+)*")  # parts of speech, as in NNP+JKS
_WITHOUT_TREE = 4
_COMMENT = "##"
_LOOKED_AT = 2000


def is_parsed(path: Path, encoding: str) -> bool:
    """Return whether every one of the first lines is a word of a sentence, and each sentence counts from 1."""
    with path.open(encoding=encoding) as file:
        lines = [line.rstrip("\r\n").split("\t") for line in itertools.islice(lines_of(file), _LOOKED_AT)]
    words = [fields for fields in lines if _is_word(fields)]
    return bool(words) and words[0][0] == "1" and all(_has_shape(fields, len(words[0])) for fields in words)


def read(file: TextFile) -> Source:
    """Read a row a sentence: `sentence`, and a list for each column."""
    with file.path.open(encoding=file.encoding) as opened:
        width = next(len(fields) for line in lines_of(opened) if _is_word(fields := line.rstrip("\r\n").split("\t")))
    columns = _COLUMNS[:width]
    return Source(file.path, ("sentence", *columns), Sentences(file.path, file.encoding, columns), file.notes)


@dataclass(frozen=True)
class Sentences:
    """The sentences of a file, as rows of lists.

    Attributes:
        path: The file.
        encoding: Its encoding.
        columns: Names of the columns.
    """

    path: Path
    encoding: str
    columns: Sequence[str]

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        words: list[list[Any]] = []
        with self.path.open(encoding=self.encoding) as file:
            for number, line in enumerate(lines_of(file), 1):
                fields = line.rstrip("\r\n").split("\t")
                if _is_word(fields):
                    words.append(self._cells(fields, number))
                elif words and not line.strip():
                    yield self._row(words)
                    words = []
        if words:
            yield self._row(words)

    def _cells(self, fields: list[str], number: int) -> list[Any]:
        if not _has_shape(fields, len(self.columns)):
            raise DataError(
                f"어절 줄의 형식이 맞지 않습니다: {' / '.join(fields)[:80]}",
                where=f"{self.path}, {number:,}번째 줄",
                remedy=f"탭으로 나눈 {len(self.columns)}개의 열({', '.join(self.columns)})로 쓰고, "
                "문장 사이에 빈 줄을 두세요. 주석은 ##로 시작합니다.",
            )
        return [int(cell) if name in _NUMBERS else cell for name, cell in zip(self.columns, fields, strict=True)]

    def _row(self, words: Sequence[Sequence[Any]]) -> dict[str, Any]:
        cells = dict(zip(self.columns, map(list, zip(*words, strict=True)), strict=True))
        return {"sentence": " ".join(cells["word_form"]), **cells}


def _is_word(fields: Sequence[str]) -> bool:
    """Return whether a line is neither blank nor a comment."""
    return any(field.strip() for field in fields) and not fields[0].startswith(_COMMENT)


def _has_shape(fields: Sequence[str], width: int) -> bool:
    """Return whether a line has so many columns, and numbers where they belong."""
    if len(fields) != width or width not in (_WITHOUT_TREE, len(_COLUMNS)) or not fields[1].strip():
        return False
    numbers = (cell for name, cell in zip(_COLUMNS, fields, strict=False) if name in _NUMBERS)
    return bool(_PARTS.fullmatch(fields[3])) and all(cell.isdecimal() and len(cell) <= _DIGITS for cell in numbers)
