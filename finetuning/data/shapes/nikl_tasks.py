"""Tasks of 모두의 말뭉치's AI evaluations since 2023: an `input` object and its `output` a row, as flat columns.

Emotions (2023): a sentence with a marked target, and True or False for each emotion: `text` and a list as `label`.
Others: `prompt` and `response`, where the input is a sentence, sentences by number, or a conversation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from finetuning.cells import as_label, as_text

Rows = Iterable[Mapping[str, Any]]

_INPUT, _OUTPUT = "input", "output"
_SENTENCE = re.compile(r"sentence\d+")
_TRUE, _FLAGS = "true", {"true", "false"}


def nikl_tasks(columns: Sequence[str], rows: Rows, where: str) -> tuple[tuple[str, ...], Rows, str] | None:
    """Flatten the rows of a task; None for rows of another shape."""
    if not {_INPUT, _OUTPUT} <= set(columns):
        return None
    first = next(iter(rows), {})
    given, wanted = first.get(_INPUT), first.get(_OUTPUT)
    if not isinstance(given, Mapping) or _text(given) is None:
        return None
    if _are_flags(wanted):
        makes, said = ("text", "label"), "참인 감정의 목록을 라벨로 읽었습니다(--set data.multi_label=true)"
    elif isinstance(wanted, str):
        makes, said = ("prompt", "response"), "input을 prompt, output을 response로 읽었습니다"
    else:
        return None
    others = tuple(column for column in columns if column not in (_INPUT, _OUTPUT, *makes))
    return (*others, *makes), _Flat(rows, others, makes), f"모두의 말뭉치 과제 형식이어서 {said}."


class _Flat:
    """The rows, with a text and what is wanted."""

    def __init__(self, rows: Rows, others: Sequence[str], makes: tuple[str, str]) -> None:
        self.rows, self.others, self.makes = rows, others, makes

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in self.rows:
            given, wanted = row.get(_INPUT), row.get(_OUTPUT)
            text = _text(given) if isinstance(given, Mapping) else None
            if isinstance(wanted, Mapping) and _are_flags(wanted):
                wanted = [name for name, flag in wanted.items() if as_label(flag).casefold() == _TRUE]
            yield {**{name: row.get(name) for name in self.others}, self.makes[0]: text, self.makes[1]: wanted}


def _text(given: Mapping[str, Any]) -> str | None:
    """Return the text of an input: a sentence with its target in brackets, sentences, or a conversation."""
    form, talk = given.get("form"), given.get("conversation")
    if isinstance(form, str):
        return _marked(form, given.get("target"))
    if isinstance(talk, list):
        return "\n".join(f"{as_text(turn.get('speaker'))}: {as_text(turn.get('utterance'))}"
                         for turn in talk if isinstance(turn, Mapping))  # fmt: skip
    sentences = sorted(name for name in given if _SENTENCE.fullmatch(name))
    return "\n".join(f"{name.removeprefix('sentence')}: {as_text(given[name])}" for name in sentences) or None


def _marked(form: str, target: Any) -> str:
    """Return a sentence with `[` and `]` around its target, where it names one at its place."""
    if not isinstance(target, Mapping) or not isinstance(target.get("form"), str):
        return form
    begin, end = target.get("begin"), target.get("end")
    is_there = isinstance(begin, int) and isinstance(end, int) and form[begin:end] == target["form"]
    return f"{form[:begin]}[{target['form']}]{form[end:]}" if is_there else form


def _are_flags(wanted: Any) -> bool:
    return isinstance(wanted, Mapping) and bool(wanted) and {as_label(v).casefold() for v in wanted.values()} <= _FLAGS
