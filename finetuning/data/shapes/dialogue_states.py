"""KLUE-DST (Wizard of Seoul) as rows: a turn of the user each, with what was said so far and the state after it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from exceptions import DataError
from finetuning.tasks.generation.states import spelled

_DIALOGUE = "dialogue"
_SPEAKERS = {"user": "사용자", "sys": "시스템"}
_COLUMNS = ("guid", "turn", "prompt", "response")

Rows = Iterable[Mapping[str, Any]]


def dialogue_states(columns: Sequence[str], rows: Rows, where: str) -> tuple[tuple[str, ...], Rows, str] | None:
    """Make a row of each turn of a user: `prompt`, the dialogue up to it, and `response`, the state as text.

    Args:
        columns: Names of the columns.
        rows: Cells by column.
        where: The source, as messages name it.

    Returns:
        The columns, rows and a sentence for the log; None for rows of another shape. `guid` is the dialogue's, so that
        `data.group_column: guid` keeps a dialogue's turns together.
    """
    first = next(iter(rows), {}).get(_DIALOGUE) if _DIALOGUE in columns else None
    if not (isinstance(first, list) and any(isinstance(turn, Mapping) and "state" in turn for turn in first)):
        return None
    note = "대화를 사용자의 발화마다 한 행으로 나누고, 그때까지의 대화를 prompt, 대화 상태를 response로 읽었습니다."
    return _COLUMNS, _Turns(rows, where), note


class _Turns:
    """The rows, one for each turn of a user."""

    def __init__(self, rows: Rows, where: str) -> None:
        self.rows, self.where = rows, where

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number, row in enumerate(self.rows, 1):
            said: list[str] = []
            asked = 0
            for turn in row.get(_DIALOGUE) or ():
                role, text, state = _parts(turn, f"{self.where}, {number:,}번째 대화")
                said.append(f"{_SPEAKERS[role]}: {text}")
                if role == "user":
                    yield {"guid": row.get("guid"), "turn": asked, "prompt": "\n".join(said), "response": state}
                    asked += 1


def _parts(turn: Any, where: str) -> tuple[str, str, str]:
    """Return who speaks, what is said, and the state as text."""
    role, text = (turn.get("role"), turn.get("text")) if isinstance(turn, Mapping) else (None, None)
    state = turn.get("state") if isinstance(turn, Mapping) else None
    is_state = state is None or (isinstance(state, list) and all(isinstance(slot, str) for slot in state))
    if role not in _SPEAKERS or not isinstance(text, str) or not is_state:
        raise DataError(
            f"대화의 발화를 읽을 수 없습니다: {str(turn)[:80]}",
            where=where,
            remedy='형식: {"role": "user"나 "sys", "text": "...", "state": ["관광-종류-박물관", ...]}',
        )
    return role, " ".join(text.split()), spelled(state or ())
