"""metrics.jsonl, the record of a run that is always written."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from exceptions import ResourceError
from finetuning.files import writing

_log = logging.getLogger(__name__)


class MetricsFile:
    """metrics.jsonl: one JSON object a line. A resumed run cuts it back to where its checkpoint was."""

    def __init__(self, output_dir: Path) -> None:
        self.path = output_dir / "metrics.jsonl"
        self._pending: list[str] = []

    def add(self, record: Mapping[str, Any]) -> None:
        """Appends one record; what a full disk does not take is kept, and written with the next."""
        self._pending.append(json.dumps(record, ensure_ascii=False) + "\n")
        try:
            self._write_pending()
        except ResourceError as error:
            if len(self._pending) == 1:  # told once, until it can be written again
                _log.warning("%s (%s) 학습을 계속하고, 다음 기록과 함께 씁니다.", error.what, error.where)

    def size(self) -> int:
        """Bytes of all records, safely on the disk; ResourceError where they cannot be written."""
        self._write_pending()
        if not self.path.exists():
            return 0
        with self._writing(), self.path.open("ab") as file:
            os.fsync(file.fileno())
        return self.path.stat().st_size

    def cut(self, size: int) -> None:
        """Drops what was written after the file had this many bytes."""
        if self.path.exists():
            with self._writing():
                os.truncate(self.path, min(size, self.path.stat().st_size))

    def _write_pending(self) -> None:
        if not self._pending:
            return
        before = self.path.stat().st_size if self.path.exists() else 0
        with self._writing():
            try:
                with self.path.open("ab") as file:
                    file.write("".join(self._pending).encode())
            except OSError:
                if self.path.exists():  # no half of a line
                    os.truncate(self.path, before)
                raise
        self._pending.clear()

    def _writing(self) -> AbstractContextManager[None]:
        remedy = "디스크의 남은 공간과 쓰기 권한을 확인한 뒤 --resume으로 이어서 학습하세요."
        return writing("학습 기록을 쓰지 못했습니다", self.path, remedy)
