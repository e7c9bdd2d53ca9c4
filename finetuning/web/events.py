"""How events of the page run.

A list (gr.Dropdown) tells of an input whenever the focus leaves it, and twice when something is chosen. So what listens
to one looks whether anything was chosen anew. A box (gr.Textbox) tells of an input by keys that make one character:
of no Hangul, no paste, no Backspace. So its changes are listened to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

# Events that change what is chosen read all of it and write all of it back, so two at once would lose a change.
IN_TURN: Mapping[str, Any] = MappingProxyType({"concurrency_limit": 1, "concurrency_id": "chosen"})
# The same for what is chosen from a list: without it a choice is dropped while the one before it is answered.
LAST_COUNTS: Mapping[str, Any] = MappingProxyType({**IN_TURN, "trigger_mode": "always_last"})


def chosen_of(names: Sequence[str], now: str | None, unasked: str | None) -> tuple[str | None, str | None]:
    """Return what a list shows when its tab is opened: what a person chose, else the newest.

    Args:
        names: What can be chosen, the newest last.
        now: What the list shows.
        unasked: What it showed before a person chose.

    Returns:
        The choice; and the same where no person made it, else None.
    """
    if now in names and now != unasked:
        return now, None
    newest = names[-1] if names else None
    return newest, newest
