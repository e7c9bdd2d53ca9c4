"""Pairs of a question and a passage that somebody judged, a row each, as questions with good and bad passages."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from finetuning.cells import as_label, as_text
from finetuning.korean.column_names import PASSAGES, QUERIES, RELEVANCES, first_of
from finetuning.tasks.parts import Gathered
from finetuning.tasks.passages import NEGATIVES

COLUMNS = ("question", "positives", "negatives")
_GOOD, _BAD = {"1", "true"}, {"0", "false"}
_LOOKED_AT = 1000  # rows


def judged_pairs(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Gathered | None:
    """Gather the passages of each question; None where rows are no pairs with labels of 1 and 0.

    Read as plain pairs, the passages that were judged not to answer would be taught as answers.

    Args:
        columns: Names of the source's columns.
        rows: Its rows; they can be iterated again.

    Returns:
        Columns, a row for each question with an answer, and a sentence for the log.
    """
    question, passage, label = (first_of(names, columns) for names in (QUERIES, PASSAGES, RELEVANCES))
    if question is None or passage is None or label is None or any(map(NEGATIVES.fullmatch, columns)):
        return None
    labels = {as_label(row.get(label)).casefold() for row in itertools.islice(rows, _LOOKED_AT)} - {""}
    if not (labels <= _GOOD | _BAD and labels & _GOOD and labels & _BAD):
        return None
    asked: dict[str, tuple[list[Any], list[Any]]] = {}
    for row in rows:
        given, found = as_label(row.get(label)).casefold(), as_text(row.get(passage))
        if found.strip() and given in _GOOD | _BAD:
            asked.setdefault(as_text(row.get(question)), ([], []))[given in _BAD].append(row[passage])
    made = [dict(zip(COLUMNS, (text, *own), strict=True)) for text, own in asked.items() if own[0]]
    note = (
        f"'{label}' 열이 1인 문서는 정답, 0인 문서는 오답으로 읽었습니다: 질문 {len(made):,}개. 정답 문서가 없어 뺀 "
        f"질문 {len(asked) - len(made):,}개. 다른 뜻의 열이면 지우거나 이름을 바꾸세요."
    )
    return COLUMNS, made, note
