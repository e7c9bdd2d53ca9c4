"""SQuAD-shaped JSON, as KorQuAD 1.0 and KLUE-MRC are published: documents of paragraphs with questions → rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from exceptions import DataError
from finetuning.korean.particles import with_particle

_SHAPE = '{"data": [{"paragraphs": [{"context": "...", "qas": [{"question": "...", "answers": [...]}]}]}]}'


def is_squad(value: Any) -> bool:
    """Return whether parsed JSON is an object whose `data` is a list of documents with `paragraphs`."""
    documents = value.get("data") if isinstance(value, dict) else None
    return isinstance(documents, list) and any(
        isinstance(document, dict) and "paragraphs" in document for document in documents
    )


def records(value: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """Flatten documents into a row for each question.

    Args:
        value: The parsed document.
        where: The source, as messages name it.

    Returns:
        Rows of `id`, `title`, `question`, `context` and `answers`, as far as the file has them. `answers` is empty for
        a question marked impossible, since plausible answers do not count.

    Raises:
        DataError: The nesting is broken, or there is no question.
    """
    rows: list[dict[str, Any]] = []
    for number, document in enumerate(value["data"], 1):
        place = f"{where}, data의 {number:,}번째 문서"
        for paragraph_place, paragraph in _objects(document, "paragraphs", "문단", place):
            if not isinstance(paragraph.get("context"), str):
                raise _broken("context가 문자열이 아닙니다", paragraph.get("context"), paragraph_place)
            for _, question in _objects(paragraph, "qas", "질문", paragraph_place):
                rows.append(_row(document, paragraph, question))
    if not rows:
        raise DataError("질문이 하나도 없습니다.", where=where, remedy="내용이 있는 파일을 지정하세요.")
    return rows


def _row(document: dict[str, Any], paragraph: dict[str, Any], question: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    if "id" in question or "guid" in question:
        row["id"] = question.get("id", question.get("guid"))
    if "title" in document:
        row["title"] = document["title"]
    row |= {"question": question.get("question"), "context": paragraph["context"]}
    if question.get("is_impossible") is True:
        row["answers"] = []
    elif "answers" in question:
        row["answers"] = question["answers"]
    return row


def _objects(parent: Any, key: str, name: str, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of the list `parent[key]`, each after its place as messages name it."""
    if not isinstance(parent, dict):
        raise _broken("객체가 아닙니다", parent, where)
    if not isinstance(parent.get(key), list):
        raise _broken(f"{with_particle(key, '이/가')} 목록이 아닙니다", parent.get(key), where)
    for number, item in enumerate(parent[key], 1):
        place = f"{where}, {number:,}번째 {name}"
        if not isinstance(item, dict):
            raise _broken("객체가 아닙니다", item, place)
        yield place, item


def _broken(what: str, value: Any, where: str) -> DataError:
    kind = "없음" if value is None else type(value).__name__
    return DataError(
        f"SQuAD 형식이 아닙니다: {what}. 지금 값: {kind}",
        where=where,
        remedy=f"형식: {_SHAPE}. 질의응답 데이터가 아니면 data.records에 행까지의 경로를 쓰세요"
        "(예: data[*].paragraphs[*]).",
    )
