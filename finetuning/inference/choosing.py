"""What is kept of the answers to a prompt, as rows that training reads: the best, the best and the worst, or all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from finetuning.tasks.generation.chat.encoding import asked

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Candidate:
    """An answer that may be kept.

    Attributes:
        text: The answer.
        ended: Whether the model ended it.
        score: How good it is; None where nothing scored it.
    """

    text: str
    ended: bool
    score: float | None


@dataclass
class Left:
    """What was left out.

    Attributes:
        prompts: Number of prompts of which nothing was kept, by a Korean reason.
    """

    prompts: Counter[str] = field(default_factory=Counter)


class Nothing(Exception):
    """Nothing of a prompt's answers is kept. The message says why, in Korean."""


def conversation_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a clean row's `messages` without an answer at its end, and its `tools` where it has any."""
    found = {"messages": list(asked(json.loads(row["messages"])))}
    return {**found, "tools": json.loads(row["tools"])} if row.get("tools") not in (None, "", "[]") else found


def answered(conversation: Mapping[str, Any], text: str) -> dict[str, Any]:
    """Return a conversation with an answer at its end."""
    return {**conversation, "messages": [*conversation["messages"], _answer(text)]}


def kept_rows(
    rows: Sequence[Mapping[str, Any]], answers: Sequence[Sequence[Candidate]], keep: str, left: Left
) -> Iterator[dict[str, Any]]:
    """Choose among the answers to each prompt.

    Args:
        rows: Clean rows of conversations.
        answers: The answers to each.
        keep: A name in `KEEPERS`.
        left: Counts the prompts that give no row.

    Yields:
        Rows in the order of the prompts; `row` is the prompt's number in its source.
    """
    for row, candidates in zip(rows, answers, strict=True):
        try:
            for record in KEEPERS[keep](conversation_of(row), candidates):
                yield {**record, "row": row["row"]}
        except Nothing as reason:
            left.prompts[str(reason)] += 1


def _best(conversation: Mapping[str, Any], candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
    best = _good(candidates)
    return [{**answered(conversation, best.text), "score": best.score}]


def _pair(conversation: Mapping[str, Any], candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
    best = _good(candidates)
    worst = min((one for one in candidates if one.text and one.score is not None), key=_score)
    if _score(worst) >= _score(best):
        raise Nothing("답의 점수가 모두 같은 프롬프트")
    others = {name: value for name, value in conversation.items() if name != "messages"}
    return [{
        "prompt": conversation["messages"], "chosen": [_answer(best.text)], "rejected": [_answer(worst.text)], **others,
        "score_chosen": best.score, "score_rejected": worst.score,
    }]  # fmt: skip


def _all(conversation: Mapping[str, Any], candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
    return [
        {**answered(conversation, one.text), "answer": number, "score": one.score, "ended": one.ended}
        for number, one in enumerate(candidates, 1)
    ]


# Name → what it keeps of one prompt's answers.
KEEPERS: Mapping[str, Callable[[Mapping[str, Any], Sequence[Candidate]], list[dict[str, Any]]]] = {
    "best": _best, "pairs": _pair, "all": _all,
}  # fmt: skip


def _good(candidates: Sequence[Candidate]) -> Candidate:
    """Return the best answer, the first of equal ones. An answer that was cut off would teach to stop anywhere."""
    usable = [one for one in candidates if one.text and one.ended and one.score is not None]
    if not usable:
        raise Nothing("끝까지 쓴 답이 하나도 없는 프롬프트")
    return max(usable, key=_score)


def _score(candidate: Candidate) -> float:
    assert candidate.score is not None
    return candidate.score


def _answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}
