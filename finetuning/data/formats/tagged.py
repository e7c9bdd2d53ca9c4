"""A token and its tag a line, a blank line between sentences: KLUE-NER as published, and CoNLL files.

Tabs divide the two, and a space may be a token. Where there are no tabs, white space divides, and any number of columns
may stand between the token, which is the first, and the tag, which is the last, as in CoNLL-2003.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from exceptions import DataError
from finetuning.data.formats.base import Source, TextFile, lines_of

SUFFIXES = (".conll", ".bio")
_LOOKED_AT = 2000
_MOSTLY = 0.9
_COMMENT = "##"
_DOCUMENT = "-DOCSTART-"  # CoNLL-2003's first line of a document
_TAG = re.compile(r"O|[BIELSUM]-\S+")  # wider than IOB2: the task reports a wrong tag, with its row


def is_tagged(path: Path, encoding: str) -> bool:
    """Return whether nine in ten of the first lines are a token and a tag, and one of the tags begins an entity.

    A table of texts with labels `O` has no `B-`. Lines of plain text are not taken for a token and a tag each.
    """
    lines = _first_lines(path, encoding)
    split = _fields_of(lines)
    tags = [fields[-1] for line in lines if 1 < len(fields := split(line)) == len(split(lines[0]))]
    fitting = [tag for tag in tags if _TAG.fullmatch(tag)]
    return len(fitting) >= _MOSTLY * len(lines) > 0 and any(tag.startswith(("B-", "S-", "U-")) for tag in fitting)


def read(file: TextFile) -> Source:
    """Read a row a sentence: `tokens` and as many `ner_tags`."""
    lines = _first_lines(file.path, file.encoding)
    split = _fields_of(lines)
    width = len(split(lines[0])) if lines else 2
    note = [f"열 {width}개 가운데 첫 열을 토큰, 마지막 열을 태그로 읽었습니다."] if width > 2 else []

    def fields_of(line: str, number: int) -> tuple[str, str] | None:
        if _is_no_token(line):
            return None
        return _fields(file.path, split(line), number, max(2, width))

    sentences = Sentences(file.path, file.encoding, fields_of)
    return Source(file.path, ("tokens", "ner_tags"), sentences, (*file.notes, *note))


def _first_lines(path: Path, encoding: str) -> list[str]:
    with path.open(encoding=encoding) as file:
        content = (line.rstrip("\r\n") for line in lines_of(file) if not (_is_between(line) or _is_no_token(line)))
        return list(itertools.islice(content, _LOOKED_AT))


def _fields_of(lines: list[str]) -> Callable[[str], list[str]]:
    """Return how a line is divided: by tabs if the first line has one, else by white space."""
    return (lambda line: line.split("\t")) if lines and "\t" in lines[0] else str.split


def _is_no_token(line: str) -> bool:
    """Return whether a line is a comment, or begins a document."""
    return line.startswith((_COMMENT, _DOCUMENT))


@dataclass(frozen=True)
class Sentences:
    """The sentences of a file with a token a line, as rows of `tokens` and `ner_tags`.

    Attributes:
        path: The file.
        encoding: Its encoding.
        fields_of: (line, its number) → token and tag, or None for a line to skip.
    """

    path: Path
    encoding: str
    fields_of: Callable[[str, int], tuple[str, str] | None]

    def __iter__(self) -> Iterator[dict[str, list[str]]]:
        tokens: list[str] = []
        tags: list[str] = []
        with self.path.open(encoding=self.encoding) as file:
            for number, line in enumerate(lines_of(file), 1):
                if _is_between(line):
                    if tokens:
                        yield {"tokens": tokens, "ner_tags": tags}
                    tokens, tags = [], []
                elif fields := self.fields_of(line.rstrip("\r\n"), number):
                    tokens.append(fields[0])
                    tags.append(fields[1])
        if tokens:
            yield {"tokens": tokens, "ner_tags": tags}


def _fields(path: Path, fields: list[str], number: int, width: int) -> tuple[str, str]:
    if len(fields) != width or not (fields[0] and fields[-1].strip()):
        wanted = "둘이어야" if width == 2 else f"{width}개여야"
        is_ragged = len(fields) != width
        raise DataError(
            f"열이 {wanted} 하는데 {len(fields)}개입니다." if is_ragged else "토큰이나 태그가 비었습니다.",
            where=f"{path}, {number:,}번째 줄",
            remedy="줄마다 '토큰(tab)태그'로 쓰고, 문장 사이에 빈 줄을 두세요. 주석은 ##로 시작합니다.",
        )
    return fields[0], fields[-1].strip()


def _is_between(line: str) -> bool:
    """Return whether a line is blank, which ends a sentence."""
    return not line.strip()
