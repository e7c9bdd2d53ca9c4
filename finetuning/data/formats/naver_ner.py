"""The Naver NER challenge's files: number, word (어절) and tag a line, tab between, a blank line between sentences."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from exceptions import DataError
from finetuning.data.formats.base import Source, TextFile, lines_of
from finetuning.data.formats.tagged import Sentences

_LOOKED_AT = 2000
_MOSTLY = 0.9
_NONE = "-"
_TAG = re.compile(r"-|([A-Z]+)_([BI])")


def is_naver_ner(path: Path, encoding: str) -> bool:
    """Return whether nine in ten of the first lines are a number, a word and a tag such as PER_B."""
    with path.open(encoding=encoding) as file:
        content = (line for line in lines_of(file) if line.strip())
        lines = [line.split("\t") for line in itertools.islice(content, _LOOKED_AT)]
    fitting = [fields[2].strip() for fields in lines if len(fields) == 3 and fields[0].strip().isdecimal()]
    tags = [tag for tag in fitting if _TAG.fullmatch(tag)]
    return len(tags) >= _MOSTLY * len(lines) > 0 and any(tag.endswith("_B") for tag in tags)


def read(file: TextFile) -> Source:
    """Read a row a sentence: `tokens`, and as many `ner_tags` in IOB2 (PER_B is B-PER, - is O)."""

    def fields_of(line: str, number: int) -> tuple[str, str]:
        fields = line.split("\t")
        tag = _TAG.fullmatch(fields[-1].strip())
        if len(fields) != 3 or not fields[1] or tag is None:
            raise DataError(
                f"'번호(tab)어절(tab)태그'가 아닙니다: {line[:40]}",
                where=f"{file.path}, {number:,}번째 줄",
                remedy=f"태그는 {_NONE}, PER_B, PER_I처럼 쓰고, 문장 사이에 빈 줄을 두세요.",
            )
        return fields[1], f"{tag[2]}-{tag[1]}" if tag[1] else "O"

    return Source(file.path, ("tokens", "ner_tags"), Sentences(file.path, file.encoding, fields_of), file.notes)
