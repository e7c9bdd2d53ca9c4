"""What a tracker was sent, so that a resumed run goes on in the tracker's own run and sends nothing twice."""

from __future__ import annotations

import json
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
    again, so that a record of a step that was sent is left out.

    Args:
        output_dir: The folder of the run.
        tracker: The name in `logging.trackers`.

    Attributes:
        run: How the tracker finds its run again, such as `id`; empty for a run that it does not have yet.
    """

    def __init__(self, output_dir: Path, tracker: str) -> None:
        self._path, self._tracker = output_dir / TRACKERS_FILE, tracker
        self.run: Mapping[str, str] = {}
        self._last: dict[str, int] = {}  # kind of record → the last step that was sent

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
        """Note that the record of a kind and step was sent."""
        self._last[kind] = step
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
