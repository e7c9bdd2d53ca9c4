"""모두의 말뭉치 (National Institute of Korean Language): documents of sentences, paragraphs or utterances → rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from exceptions import DataError

_PARTS = ("sentence", "paragraph", "utterance")
_SHAPE = '{"document": [{"id": "...", "sentence": [{"id": "...", "form": "..."}]}]}'


def is_modu(value: Any) -> bool:
    """Return whether parsed JSON is an object whose `document` is a list of objects with one of the parts."""
    documents = value.get("document") if isinstance(value, dict) else None
    return isinstance(documents, list) and any(
        isinstance(document, dict) and isinstance(document.get(part), list) for document in documents for part in _PARTS
    )


def records(value: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """Flatten a corpus into a row for each part that has a text.

    Args:
        value: The parsed document.
        where: The source, as messages name it.

    Returns:
        Rows of `document_id`, `id`, `text` and the part's other plain values. If parts have entities (`NE`: label,
        begin, end), `tokens` are the characters of the text and `ner_tags` their IOB2 tags.

    Raises:
        DataError: The nesting is broken, or there is no text.
    """
    parts = list(_parts(value, where))
    has_entities = any("NE" in part for _, part, _ in parts)
    rows = []
    for document, part, place in parts:
        form = part.get("form")
        if not isinstance(form, str):
            raise _broken("form이 문자열이 아닙니다", form, place)
        row = {"document_id": document.get("id"), "text": form}
        row |= {key: item for key, item in part.items() if key != "form" and not isinstance(item, list | dict)}
        if has_entities:
            row |= {"tokens": list(form), "ner_tags": _tags(form, part.get("NE") or [], place)}
        rows.append(row)
    if not rows:
        raise DataError("텍스트가 하나도 없습니다.", where=where, remedy="내용이 있는 파일을 지정하세요.")
    return rows


def _parts(value: dict[str, Any], where: str) -> Iterator[tuple[dict[str, Any], dict[str, Any], str]]:
    for number, document in enumerate(value["document"], 1):
        place = f"{where}, document의 {number:,}번째 항목"
        if not isinstance(document, dict):
            raise _broken("객체가 아닙니다", document, place)
        name = next((name for name in _PARTS if isinstance(document.get(name), list)), None)
        for position, part in enumerate(document[name] if name else [], 1):
            if not isinstance(part, dict):
                raise _broken("객체가 아닙니다", part, f"{place}, {name}의 {position:,}번째 항목")
            yield document, part, f"{place}, {name}의 {position:,}번째 항목"


def _tags(form: str, entities: list[Any], place: str) -> list[str]:
    """Return the IOB2 tags of a text's characters; of overlapping entities, the first is kept."""
    tags = ["O"] * len(form)
    for entity in entities:
        begin, end, label = (
            (entity.get(key) for key in ("begin", "end", "label")) if isinstance(entity, dict) else [None] * 3
        )
        if not (isinstance(begin, int) and isinstance(end, int) and 0 <= begin < end <= len(form) and label):
            raise _broken("NE의 label, begin, end가 맞지 않습니다", entity, place)
        if all(tag == "O" for tag in tags[begin:end]):
            tags[begin:end] = [f"B-{label}", *[f"I-{label}"] * (end - begin - 1)]
    return tags


def _broken(what: str, value: Any, where: str) -> DataError:
    kind = "없음" if value is None else type(value).__name__
    return DataError(f"모두의 말뭉치 형식이 아닙니다: {what}. 지금 값: {kind}", where=where, remedy=f"형식: {_SHAPE}")
