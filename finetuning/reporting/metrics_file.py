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
    """One JSON object a line. A resumed run cuts the file back to where its checkpoint was.

    Args:
        output_dir: The folder of the run.
    """

    def __init__(self, output_dir: Path) -> None:
        self.path = output_dir / "metrics.jsonl"
        self._pending: list[str] = []

    def add(self, record: Mapping[str, Any]) -> None:
        """Append one record; on a full disk it is kept in memory and written with the next one."""
        self._pending.append(json.dumps(record, ensure_ascii=False) + "\n")
        try:
            self._write_pending()
        except ResourceError as error:
            if len(self._pending) == 1:  # warn once, until writing works again
                _log.warning("%s (%s) 학습을 계속하고, 다음 기록과 함께 씁니다.", error.what, error.where)

    def size(self) -> int:
        """Flush all records to the disk.

        Returns:
            The file's size in bytes.

        Raises:
            ResourceError: The records cannot be written.
        """
        self._write_pending()
        if self.path.exists():
            with self._writing(), self.path.open("ab") as file:
                os.fsync(file.fileno())
        return self.written()

    def written(self) -> int:
        """Return the file's size in bytes, 0 where there is none."""
        return self.path.stat().st_size if self.path.exists() else 0

    def cut(self, size: int) -> None:
        """Drop everything after the first `size` bytes; warn where the file has fewer, since records are lost.

        Args:
            size: Bytes to keep, as `size()` returned it for the checkpoint.

        Raises:
            ResourceError: The file cannot be written.
        """
        whole = self._whole_lines() if self.written() < size else size
        if whole < size:
            _log.warning("학습 기록이 체크포인트를 저장할 때보다 짧습니다. 앞의 기록 일부가 없습니다: %s", self.path)
        if self.path.exists():
            with self._writing():
                os.truncate(self.path, whole)

    def _whole_lines(self) -> int:
        """Return the bytes of the lines that have an end."""
        return self.path.read_bytes().rfind(b"\n") + 1 if self.path.exists() else 0

    def _write_pending(self) -> None:
        if not self._pending:
            return
        before = self.written()
        with self._writing():
            try:
                with self.path.open("ab") as file:
                    file.write("".join(self._pending).encode())
            except OSError:
                if self.path.exists():  # leave no part of a line
                    os.truncate(self.path, before)
                raise
        self._pending.clear()

    def _writing(self) -> AbstractContextManager[None]:
        remedy = "디스크의 남은 공간과 쓰기 권한을 확인한 뒤 --resume으로 이어서 학습하세요."
        return writing("학습 기록을 쓰지 못했습니다", self.path, remedy)


def records_in(output_dir: Path) -> list[dict[str, Any]]:
    """Read the records of a run's metrics.jsonl; none where it cannot be read."""
    try:
        lines = MetricsFile(output_dir).path.read_text(encoding="utf-8").splitlines()
        return [record for record in map(json.loads, lines) if isinstance(record, dict)]
    except (OSError, ValueError):  # the user may have edited or moved it
        return []


def validation_losses(output_dir: Path) -> list[float]:
    """Read the validation loss at the end of each epoch from a run's metrics.jsonl; none where it cannot be read."""
    ends = (one for one in records_in(output_dir) if one.get("kind") == "eval" and "train_loss" in one)
    return [one["loss"] for one in ends if isinstance(one.get("loss"), float)]
