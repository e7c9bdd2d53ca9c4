"""What a tracker was sent, so that a resumed run goes on in the tracker's own run and sends nothing twice."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from exceptions import ResourceError
from finetuning.files import write_json

TRACKERS_FILE = "trackers.json"


class SentRecords:
    """The records that one tracker has of a run, kept in `trackers.json` of the run's folder.

    A run that was killed may have sent records after its last checkpoint. The resumed run computes the same values
    again, so that a record of a step that was sent is left out. A tracker that sends from a buffer loses what is in it
    when the process is killed: a record counts as sent some seconds later, or when the run ends.

    Args:
        output_dir: The folder of the run.
        tracker: The name in `logging.trackers`.
        buffered_s: Seconds that a record may stay in the tracker's buffer.

    Attributes:
        run: How the tracker finds its run again, such as `id`; empty for a run that it does not have yet.
    """

    def __init__(self, output_dir: Path, tracker: str, buffered_s: float = 0.0) -> None:
        self._path, self._tracker, self._buffered_s = output_dir / TRACKERS_FILE, tracker, buffered_s
        self.run: Mapping[str, str] = {}
        self._last: dict[str, int] = {}  # kind of record → the last step that was sent
        self._buffered: deque[tuple[float, str, int]] = deque()  # when it was handed over, its kind and step

    def read(self) -> None:
        """Read what an earlier process sent; nothing where the file is missing or damaged."""
        try:
            mine = self._all()[self._tracker]
            run = {str(name): str(value) for name, value in mine["run"].items()}
            last = {str(kind): int(step) for kind, step in mine["last_steps"].items()}
        except (KeyError, TypeError, ValueError, AttributeError):
            return
        self.run, self._last = run, last

    def begin(self, run: Mapping[str, str]) -> None:
        """Keep how the tracker finds the run that it began."""
        self.run = run
        self._write()

    def has(self, kind: str, step: int) -> bool:
        """Return whether the record of a kind and step was sent."""
        return step <= self._last.get(kind, -1)

    def add(self, kind: str, step: int) -> None:
        """Note that the record of a kind and step was handed to the tracker."""
        self._buffered.append((time.monotonic(), kind, step))
        self._settle(time.monotonic() - self._buffered_s)

    def finish(self) -> None:
        """Note that the tracker has sent all that it was handed."""
        self._settle(math.inf)

    def _settle(self, until: float) -> None:
        """Count the records as sent that were handed over until a time."""
        count = sum(handed <= until for handed, _, _ in self._buffered)
        for _ in range(count):
            _, kind, step = self._buffered.popleft()
            self._last[kind] = step
        if count:
            self._write()

    def _all(self) -> dict[str, Any]:
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self) -> None:
        with suppress(ResourceError):  # a full disk: at worst, a resumed run sends a value twice
            write_json(self._path, {**self._all(), self._tracker: {"run": self.run, "last_steps": self._last}})
