"""The corpus of a retrieval dataset, as BEIR publishes it: an id, a title and a text, which belong together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from finetuning.cells import as_text

Rows = Iterable[Mapping[str, Any]]

_TITLE, _TEXT = "title", "text"
_IDS = {"_id", "docid", "doc_id"}
_OTHERS = {"metadata", "url"}


def titled(columns: Sequence[str], rows: Rows, where: str) -> tuple[tuple[str, ...], Rows, str] | None:
    """Put each title before its text; None for rows of another shape, such as a table with further columns."""
    names = set(columns)
    is_corpus = {_TITLE, _TEXT} <= names and names & _IDS and names <= {_TITLE, _TEXT, *_IDS, *_OTHERS}
    return (tuple(columns), _Titled(rows), "제목을 본문 앞에 붙여 읽었습니다.") if is_corpus else None


class _Titled:
    """The rows, whose texts begin with their title."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in self.rows:
            parts = filter(None, (as_text(row.get(name)) for name in (_TITLE, _TEXT)))
            yield {**row, _TEXT: "\n".join(parts)}
