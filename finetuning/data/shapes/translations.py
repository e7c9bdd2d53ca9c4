"""The `translation` structs of the Hub's parallel corpora as a column for each language."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

_STRUCT = "translation"

Rows = Iterable[Mapping[str, Any]]


def translations(columns: Sequence[str], rows: Rows, where: str) -> tuple[tuple[str, ...], Rows, str] | None:
    """Make a column of each language, such as `ko` and `en`; None for rows of another shape."""
    if _STRUCT not in columns:
        return None
    first = next(iter(rows), {}).get(_STRUCT)
    if not (isinstance(first, dict) and len(first) > 1 and not any(isinstance(t, list | dict) for t in first.values())):
        return None
    languages = tuple(first)
    others = tuple(column for column in columns if column != _STRUCT and column not in languages)
    note = f"{_STRUCT} 열을 언어별 열({', '.join(languages)})로 나누었습니다."
    return (*others, *languages), _ByLanguage(rows, others, languages), note


class _ByLanguage:
    """The rows, with a cell for each language."""

    def __init__(self, rows: Rows, others: Sequence[str], languages: Sequence[str]) -> None:
        self.rows, self.others, self.languages = rows, others, languages

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in self.rows:
            texts = row.get(_STRUCT)
            found = texts if isinstance(texts, dict) else {}
            yield {
                **{column: row.get(column) for column in self.others},
                **{language: found.get(language) for language in self.languages},
            }
