"""A journal of batches: results on the disk as they are made, so that work goes on where it was stopped or killed.

The file is no result: it lies beside the result's place under a name that no reader takes for data. The first line says
what the work is, each other line holds a batch. A line that was not written to its end does not count.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exceptions import SettingsError
from finetuning.files import writing

_WHAT = "만든 답을 쓰지 못했습니다"


@dataclass(frozen=True)
class Journal:
    """Results by the number of their batch.

    Attributes:
        path: The file.
        done: JSON values of the batches that it holds, by number.
    """

    path: Path
    done: dict[int, Any] = field(default_factory=dict)

    def add(self, number: int, made: Any) -> None:
        """Add a batch, and wait until it is on the disk.

        Args:
            number: Number of the batch.
            made: Its results, a JSON value.

        Raises:
            ResourceError: The disk is full or cannot be written.
        """
        _append(self.path, {"batch": number, "made": made})
        self.done[number] = made


def open_journal(path: Path, work: Mapping[str, str]) -> Journal:
    """Open the journal of some work, or begin it.

    Args:
        path: The file.
        work: What the results depend on, by a Korean name.

    Returns:
        The journal, with the batches that are whole.

    Raises:
        SettingsError: The file is of other work; it says what differs.
        ResourceError: The disk is full or cannot be written.
    """
    lines, end = _whole_lines(path)
    if not lines:
        with writing(_WHAT, path):
            path.write_bytes(b"")
        _append(path, dict(work))
        return Journal(path)
    if lines[0] != work:
        different = [name for name in work if lines[0].get(name) != work[name]]
        raise SettingsError(
            f"만들다 멈춘 답이 있는데, 그때와 다릅니다: {', '.join(different)}",
            where=str(path),
            remedy="이어서 만들려면 그때와 같은 명령을 쓰세요. 처음부터 만들려면 이 파일을 지우거나 --output에 다른 "
            "이름을 쓰세요.",
        )
    with writing(_WHAT, path):
        os.truncate(path, end)
    return Journal(path, {line["batch"]: line["made"] for line in lines[1:]})


def _whole_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the lines that were written to their end, and the number of their bytes."""
    found, end = list[dict[str, Any]](), 0
    if not path.is_file():
        return found, end
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            value = json.loads(line)
        except ValueError:
            break
        if not (line.endswith(b"\n") and isinstance(value, dict)):
            break
        found.append(value)
        end += len(line)
    return found, end


def _append(path: Path, value: Any) -> None:
    with writing(_WHAT, path), path.open("ab") as file:
        file.write(json.dumps(value, ensure_ascii=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
