"""Published questions with choices (KMMLU, KoBEST) and yes-or-no questions (Ko-StrategyQA) as flat columns.

A question with choices becomes `prompt` and `response`: the choices by letter, as lm-eval's KMMLU asks them, and the
letter of the right one. A pair with a label becomes `sentence1` and `sentence2`. HAE-RAE's `query` and `answer`, KULLM
and KOpen-platypus are read without a shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetuning.cells import as_label, as_text

Rows = Iterable[Mapping[str, Any]]

_LETTERS = "ABCD"
_ANSWER = "정답："  # with a full-width colon, as in lm-eval
_YES_OR_NO = {"true": "예", "false": "아니요"}


@dataclass(frozen=True)
class _Shape:
    """A published shape.

    Attributes:
        name: The data's name, for the log.
        needs: Its columns.
        makes: The columns to make.
        cells: A row → the cells of these columns.
        drops: Columns that would be read beside the new ones.
    """

    name: str
    needs: frozenset[str]
    makes: tuple[str, ...]
    cells: Callable[[Mapping[str, Any]], Sequence[Any]]
    drops: frozenset[str] = frozenset()


def _asked(question: str, options: Sequence[Any], right: Any, first: int) -> tuple[str, str | None]:
    """Ask a question with its choices.

    Args:
        question: The question.
        options: The choices.
        right: The right one's number or letter.
        first: The number of the first choice.

    Returns:
        The prompt, and the letter of the right choice; None where that is not known.
    """
    lines = [f"{letter}. {as_text(option).strip()}" for letter, option in zip(_LETTERS, options, strict=False)]
    prompt = "\n".join([question.strip(), *lines, _ANSWER])
    label = as_label(right)
    if label in _LETTERS[: len(options)] and label:
        return prompt, label
    place = int(label) - first if label.isdecimal() else -1
    return prompt, _LETTERS[place] if 0 <= place < len(options) else None


def _kmmlu(row: Mapping[str, Any]) -> Sequence[Any]:
    return _asked(as_text(row["question"]), [row[letter] for letter in _LETTERS], row["answer"], first=1)


def _copa(row: Mapping[str, Any]) -> Sequence[Any]:
    question = f"{as_text(row['premise']).strip()}\n이 문장의 {as_text(row['question']).strip()}에 알맞은 것은?"
    return _asked(question, [row["alternative_1"], row["alternative_2"]], row["label"], first=0)


def _hellaswag(row: Mapping[str, Any]) -> Sequence[Any]:
    question = f"{as_text(row['context']).strip()}\n이어질 문장으로 알맞은 것은?"
    return _asked(question, [row[f"ending_{number}"] for number in range(1, 5)], row["label"], first=0)


def _boolq(row: Mapping[str, Any]) -> Sequence[Any]:
    return row["paragraph"], row["question"]


def _wic(row: Mapping[str, Any]) -> Sequence[Any]:
    return f"{as_text(row['word'])}: {as_text(row['context_1'])}", row["context_2"]


def _strategy(row: Mapping[str, Any]) -> Sequence[Any]:
    answer = as_label(row["answer"])
    return row["question"], _YES_OR_NO.get(answer.casefold(), answer)


_TEXTS, _PAIR = ("prompt", "response"), ("sentence1", "sentence2")
_SHAPES = (
    _Shape("KMMLU", frozenset({"question", "answer", *_LETTERS}), _TEXTS, _kmmlu),
    _Shape("KoBEST COPA", frozenset({"premise", "question", "alternative_1", "alternative_2", "label"}), _TEXTS, _copa),
    _Shape(
        "KoBEST HellaSwag", frozenset({"context", *(f"ending_{number}" for number in range(1, 5)), "label"}), _TEXTS,
        _hellaswag, frozenset({"context"}),
    ),
    _Shape("KoBEST BoolQ", frozenset({"paragraph", "question", "label"}), _PAIR, _boolq),
    _Shape("KoBEST WiC", frozenset({"word", "context_1", "context_2", "label"}), _PAIR, _wic),
    _Shape("Ko-StrategyQA", frozenset({"question", "answer", "facts", "decomposition"}), _TEXTS, _strategy),
)  # fmt: skip


def choices(columns: Sequence[str], rows: Rows, where: str) -> tuple[tuple[str, ...], Rows, str] | None:
    """Make the columns of a published shape; None for rows of another one, or that have these columns already."""
    names = set(columns)
    shape = next((one for one in _SHAPES if one.needs <= names and not names & set(one.makes)), None)
    if shape is None:
        return None
    note = f"{shape.name}의 형식이어서 {', '.join(shape.makes)} 열을 만들었습니다."
    kept = tuple(column for column in columns if column not in shape.drops)
    return (*kept, *shape.makes), _Made(rows, shape), note


class _Made:
    """The rows, with the cells of the shape."""

    def __init__(self, rows: Rows, shape: _Shape) -> None:
        self.rows, self.shape = rows, shape

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in self.rows:
            whole = {name: row.get(name) for name in self.shape.needs}
            kept = {name: cell for name, cell in row.items() if name not in self.shape.drops}
            yield {**kept, **dict(zip(self.shape.makes, self.shape.cells(whole), strict=True))}
