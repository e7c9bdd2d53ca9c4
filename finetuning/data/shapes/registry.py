"""Every nested shape that becomes flat rows, whether it comes from a file or from the Hub: one row a shape.

To add a shape of rows, write a function that returns the flat columns and rows, or None for other rows. To add a shape
of a whole JSON document, write a test and a function that returns its records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from finetuning.data.shapes import (
    aihub,
    choices,
    dialogue_states,
    frames,
    klue,
    modu,
    nikl_tasks,
    squad,
    tag_schemes,
    titled,
    translations,
)

Rows = Iterable[Mapping[str, Any]]
Flat = tuple[tuple[str, ...], Rows, str]  # columns, rows, and a sentence for the log or ""

_ROWS: tuple[Callable[[Sequence[str], Rows, str], Flat | None], ...] = (
    klue.relations,
    klue.similarity,
    dialogue_states.dialogue_states,
    translations.translations,
    tag_schemes.wider_tags,
    titled.titled,
    choices.choices,
    nikl_tasks.nikl_tasks,
    aihub.emotions,
)
_DOCUMENTS: tuple[tuple[Callable[[Any], bool], Callable[[dict[str, Any], str], list[dict[str, Any]]]], ...] = (
    (squad.is_squad, squad.records),
    (modu.is_modu, modu.records),
    (aihub.is_summaries, aihub.summaries),
    (aihub.is_sessions, aihub.sessions),
    (aihub.is_precedent, aihub.precedents),
    (aihub.is_question, aihub.questions),
    (frames.is_split, frames.split_records),
    (frames.is_by_label, frames.records_by_label),
    (frames.is_by_column, frames.records_by_column),
)


def flat_rows(columns: Sequence[str], rows: Rows, where: str) -> Flat:
    """Flatten rows of a known shape.

    Args:
        columns: Names of the columns.
        rows: Cells by column, which may be objects.
        where: The source, as messages name it.

    Returns:
        The flat columns and rows with a note, or those given where no shape matches.
    """
    return next((flat for shape in _ROWS if (flat := shape(columns, rows, where))), (tuple(columns), rows, ""))


def flat_records(document: Any, where: str) -> list[dict[str, Any]] | None:
    """Flatten a JSON document of a known shape.

    Args:
        document: The parsed document.
        where: The source, as messages name it.

    Returns:
        Its records, or None where no shape matches.

    Raises:
        DataError: The document has a known shape, but its nesting is broken.
    """
    return next((records(document, where) for matches, records in _DOCUMENTS if matches(document)), None)
