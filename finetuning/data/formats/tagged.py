"""One token and its tag a line, tab between, a blank line between sentences: KLUE-NER as published, and CoNLL files."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from exceptions import DataError
from finetuning.data.formats.base import Source, TextFile, lines_of

_LOOKED_AT = 2000
_MOSTLY = 0.9
_COMMENT = "##"
_TAG = re.compile(r"O|[BIELSUM]-\S+")  # wider than IOB2: the task reports a wrong tag, with its row


def is_tagged(path: Path, encoding: str) -> bool:
    """Return whether nine in ten of the first lines are a token, a tab and a tag, and one of the tags begins with `B-`.

    A table of texts with labels `O` has no `B-`.
    """
    with path.open(encoding=encoding) as file:
        content = (line for line in lines_of(file) if not _is_between(line) and not line.startswith(_COMMENT))
        tags = [line.rstrip("\r\n").partition("\t")[2] for line in itertools.islice(content, _LOOKED_AT)]
    fitting = [tag for tag in tags if _TAG.fullmatch(tag)]
    return len(fitting) >= _MOSTLY * len(tags) > 0 and any(tag.startswith("B-") for tag in fitting)


def read(file: TextFile) -> Source:
    """Read a row a sentence: `tokens`, a space may be one of them, and as many `ner_tags`."""

    def fields_of(line: str, number: int) -> tuple[str, str] | None:
        return None if line.startswith(_COMMENT) else _fields(file.path, line, number)

    return Source(file.path, ("tokens", "ner_tags"), Sentences(file.path, file.encoding, fields_of), file.notes)


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


def _fields(path: Path, line: str, number: int) -> tuple[str, str]:
    fields = line.split("\t")
    if len(fields) != 2 or not all(fields):
        what = f"열이 둘이어야 하는데 {len(fields)}개입니다." if len(fields) != 2 else "토큰이나 태그가 비었습니다."
        raise DataError(
            what,
            where=f"{path}, {number:,}번째 줄",
            remedy="줄마다 '토큰(tab)태그'로 쓰고, 문장 사이에 빈 줄을 두세요. 주석은 ##로 시작합니다.",
        )
    return fields[0], fields[1].strip()


def _is_between(line: str) -> bool:
    """Return whether a line is blank, which ends a sentence."""
    return not line.strip()
