"""States of a dialogue, as KLUE-DST (Wizard of Seoul) writes them: `도메인-슬롯-값`, spelled as one text and scored.

A state is spelled in the order of its slots, so that there is one right text for each. A value may hold a comma, so a
text is divided at commas before the next `도메인-슬롯-`; a value with a comma and such a beginning in it is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

EMPTY = "없음"  # a state without a slot: an empty text is none to learn
_BETWEEN = ", "
_ITEM = r"[^\s,-][^,-]*-[^,-]+-"
_NEXT = re.compile(rf"\s*,\s*(?={_ITEM})")
_STATE = re.compile(_ITEM + r"\s*\S")


def spelled(state: Iterable[str]) -> str:
    """Return a state as text: its slots in order, each `도메인-슬롯-값`."""
    return _BETWEEN.join(sorted(" ".join(item.split()) for item in state)) or EMPTY


def slots_in(text: str) -> list[str]:
    """Return the slots of a state's text, each `도메인-슬롯-값`; what is no slot stays as it is, to count as wrong."""
    items = [" ".join(item.split()) for item in _NEXT.split(text.strip())]
    return [item for item in items if item and item != EMPTY]


def are_states(texts: Sequence[str]) -> bool:
    """Return whether every text is a state, and one of them has a slot."""
    found = [text for text in texts if text != EMPTY]
    return bool(found) and all(_STATE.match(text) and spelled(slots_in(text)) == text for text in found)


def state_scores(pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Score generated states, as KLUE-baseline's wos_jga and wos_slot_micro_f1 do.

    Args:
        pairs: Each generated text with the true one.

    Returns:
        `joint_goal_accuracy`, the share of turns whose slots are all right and no others; `slot_f1`, the mean over the
        turns of the F1 of their slots. Nothing where the true texts are no states.
    """
    if not are_states([truth for _, truth in pairs]):
        return {}
    turns = [(slots_in(made), slots_in(truth)) for made, truth in pairs]
    return {
        "joint_goal_accuracy": sum(set(made) == set(truth) for made, truth in turns) / len(turns),
        "slot_f1": sum(_f1(made, truth) for made, truth in turns) / len(turns),
    }


def _f1(made: Sequence[str], truth: Sequence[str]) -> float:
    """Return the F1 of a turn's slots; 1 where neither side has one."""
    if not truth:
        return float(not made)
    found = sum(slot in made for slot in truth)
    wrong = sum(slot not in truth for slot in made)
    return 2 * found / (len(truth) + found + wrong) if found else 0.0
