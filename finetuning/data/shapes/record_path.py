"""The path to the records of nested JSON, as AI Hub publishes it: `data[*].paragraphs[*]` → rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from exceptions import DataError

_STEP = re.compile(r"([^.\[\]]+)|\[\*\]")
EVERY = "[*]"


def steps_of(path: str) -> tuple[str, ...]:
    """Divide a path of the settings into steps: a key, or EVERY item of a list."""
    return tuple(match[0] for match in _STEP.finditer(path))


@dataclass(frozen=True)
class _Place:
    """A value on the way, and the plain values of the objects around it by key; the nearest object's wins."""

    value: Any
    around: dict[str, Any]


def records(value: Any, path: str, where: str) -> tuple[list[dict[str, Any]], str]:
    """Return a row for each object that the path leads to.

    A row has the object's values, those of an object inside it as `outer.inner`, and the plain values of the objects
    around it under their own keys. A string makes a row of `text`.

    Args:
        value: The parsed document.
        path: `data.records`.
        where: The source, as messages name it.

    Returns:
        The rows, and a note on values that lack a step (empty where none does).

    Raises:
        DataError: A step matches no value at all; the message names it.
    """
    places, done, lost = [_Place(value, {})], "", []
    for step in steps_of(path):
        fitting = [place for place in places if _fits(place.value, step)]
        found = [next_place for place in fitting for next_place in _step(place, step)]
        if not found:
            raise _no_step(step, done, (fitting or places)[0].value, where)
        if len(fitting) < len(places):
            lost.append(f"'{done}'에서 '{step}' 단계가 없는 {len(places) - len(fitting):,}개를 제외했습니다.")
        places, done = found, f"{done}{'' if step == EVERY or not done else '.'}{step}"
    return [{**place.around, **_row(place.value, path, where)} for place in places], " ".join(lost)


def _fits(value: Any, step: str) -> bool:
    return isinstance(value, list) if step == EVERY else isinstance(value, dict) and step in value


def _step(place: _Place, step: str) -> Iterator[_Place]:
    if step == EVERY:
        yield from (_Place(item, place.around) for item in place.value)
    else:
        others = {key: item for key, item in place.value.items() if key != step and not isinstance(item, list | dict)}
        yield _Place(place.value[step], {**place.around, **others})


def _row(value: Any, path: str, where: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return dict(_flat(value))
    if isinstance(value, str):
        return {"text": value}
    raise DataError(
        f"'{path}'에 객체도 문자열도 아닌 값이 있습니다: {_kind(value)}",
        where=f"{where}, data.records",
        remedy="객체의 목록까지의 경로를 쓰세요. 예: data[*].paragraphs[*]",
    )


def _flat(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, dict):
            yield from _flat(item, f"{prefix}{key}.")
        else:
            yield prefix + key, item


def _no_step(step: str, done: str, value: Any, where: str) -> DataError:
    here = f"'{done}'" if done else "파일의 처음"
    if step == EVERY:
        what = f"{here}에서 '[*]' 단계가 맞지 않습니다: 비어 있지 않은 목록이 아닙니다. 있는 값: {_kind(value)}"
    else:
        what = f"{here}에서 '{step}' 단계가 맞지 않습니다. 있는 것: {_kind(value)}"
    return DataError(what, where=f"{where}, data.records", remedy="경로를 고치세요. 예: data[*].paragraphs[*]")


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return f"키 {', '.join(value) or '없음'}"
    return f"목록({len(value):,}개)" if isinstance(value, list) else f"{type(value).__name__} 값"
