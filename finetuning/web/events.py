"""How events of the page run."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

# Events that change what is chosen read all of it and write all of it back, so two at once would lose a change.
IN_TURN: Mapping[str, Any] = MappingProxyType({"concurrency_limit": 1, "concurrency_id": "chosen"})
# The same for what is chosen from a list: without it a choice is dropped while the one before it is answered.
LAST_COUNTS: Mapping[str, Any] = MappingProxyType({**IN_TURN, "trigger_mode": "always_last"})
