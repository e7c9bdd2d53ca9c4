"""KLUE's nested columns as flat ones: the scores of STS, and the two entities of RE marked in their sentence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from exceptions import DataError
from finetuning.cells import written_value
from finetuning.korean.particles import with_particle

# KLUE-baseline's (klue_baseline/data/klue_re.py): text around the words, special tokens of its tokenizer.
_MARKERS = {"subject_entity": ("<subj>", "</subj>"), "object_entity": ("<obj>", "</obj>")}
_SENTENCE = "sentence"
_SCORES = "labels"
_REAL = "real-label"

Rows = Iterable[Mapping[str, Any]]


def relations(columns: Sequence[str], rows: Rows, where: str) -> tuple[tuple[str, ...], Rows, str] | None:
    """Mark the two entities of KLUE-RE in their sentence; None for rows of another shape."""
    return (tuple(columns), _Marked(rows, where), "") if {_SENTENCE, *_MARKERS} <= set(columns) else None


def similarity(columns: Sequence[str], rows: Rows, where: str) -> tuple[tuple[str, ...], Rows, str] | None:
    """Replace KLUE-STS's `labels` by `label`, the mean of its annotators; None for rows of another shape.

    KLUE trains and measures by that mean, `real-label`.
    """
    if _SCORES not in columns or "label" in columns:
        return None
    first = next(iter(rows), {})
    if not (isinstance(first.get(_SCORES), dict) and _REAL in first[_SCORES]):
        return None
    return tuple("label" if column == _SCORES else column for column in columns), _Scored(rows), ""


class _Scored:
    """The rows of STS."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in self.rows:
            scores = row.get(_SCORES) or {}
            yield {**{key: value for key, value in row.items() if key != _SCORES}, "label": scores.get(_REAL)}


class _Marked:
    """The rows of RE."""

    def __init__(self, rows: Rows, where: str) -> None:
        self.rows, self.where = rows, where

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number, row in enumerate(self.rows, 1):
            yield {**row, _SENTENCE: _mark(row, f"{self.where}, {number:,}번째 행")}


def _mark(row: Mapping[str, Any], where: str) -> str:
    sentence = str(row[_SENTENCE])
    spans = []
    for name, (opening, closing) in _MARKERS.items():
        entity = _entity(row[name], name, where)
        start, end = int(entity["start_idx"]), int(entity["end_idx"]) + 1  # KLUE's end is the last character
        if sentence[start:end] != entity["word"]:
            raise DataError(
                f"{name}의 위치에 {with_particle(repr(entity['word']), '이/가')} 없습니다. "
                f"그 위치에 있는 텍스트: '{sentence[start:end]}'",
                where=where,
                remedy="start_idx와 end_idx(마지막 글자의 위치)를 확인하세요.",
            )
        spans.append((start, end, opening, closing))
    (first_start, first_end, *first), (second_start, second_end, *second) = sorted(spans)
    if second_start < first_end:
        raise DataError("두 개체의 위치가 겹칩니다.", where=where, remedy="그 행을 고치거나 삭제하세요.")
    return "".join(
        [sentence[:first_start], first[0], sentence[first_start:first_end], first[1], sentence[first_end:second_start],
         second[0], sentence[second_start:second_end], second[1], sentence[second_end:]]
    )  # fmt: skip


def _entity(cell: Any, name: str, where: str) -> dict[str, Any]:
    """Return an entity's object; a CSV holds it as text, which is JSON or Python's repr of a dict."""
    if isinstance(cell, str):
        with suppress(ValueError):
            cell = written_value(cell)
    if not (isinstance(cell, dict) and {"word", "start_idx", "end_idx"} <= cell.keys()):
        raise DataError(
            f"{with_particle(name, '을/를')} 읽을 수 없습니다: {str(cell)[:60]}",
            where=where,
            remedy='형식: {"word": "비틀즈", "start_idx": 24, "end_idx": 26}',
        )
    return cell
