"""The runs below a folder, read from the files that they left. Nothing here needs torch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exceptions import FinetuningError
from finetuning.checkpoints.lock import is_locked
from finetuning.checkpoints.names import CHECKPOINTS, LATEST, checkpoints_in, entries, step_of
from finetuning.commands.run_folder import is_ours
from finetuning.exports.folder import EXPORTED
from finetuning.files import disk_reason
from finetuning.reporting.run_rows import RunRow, State

_DEEPEST = 4  # folders below the one that was named
_LARGEST_SUMMARY = 1 << 24  # bytes
_BEST = "best_validation_"


@dataclass
class FoundRuns:
    """What is below a folder.

    Attributes:
        rows: The runs.
        damaged: Folders of runs whose files cannot be read, with the reason in Korean.
        foreign: Folders directly below that hold no run.
    """

    rows: list[RunRow] = field(default_factory=list)
    damaged: list[tuple[Path, str]] = field(default_factory=list)
    foreign: list[Path] = field(default_factory=list)


def runs_below(folder: Path) -> FoundRuns:
    """Read the runs of a folder, some folders deep.

    Args:
        folder: Where to look. It may be a run itself.

    Returns:
        The runs, and what was skipped.
    """
    found = FoundRuns()
    if is_run(folder):
        _read(folder, folder.name or str(folder), found)
        return found
    for child in _folders_in(folder):
        before = len(found.rows) + len(found.damaged)
        for run in _runs_at(child, _DEEPEST - 1):
            _read(run, run.relative_to(folder).as_posix(), found)
        if len(found.rows) + len(found.damaged) == before:
            found.foreign.append(child)
    return found


def read_run(folder: Path, name: str) -> RunRow:
    """Read one run.

    Args:
        folder: Its folder.
        name: How the row names it.

    Returns:
        The run's row.

    Raises:
        ValueError: A file of it is damaged. The message is in Korean.
    """
    if not (folder / "summary.json").exists():
        return _unfinished(folder, name)
    summary = _summary(folder / "summary.json")
    try:
        return _finished(folder, name, summary)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError("summary.json에 있어야 할 값이 없습니다") from None


def _runs_at(folder: Path, deeper: int) -> Iterator[Path]:
    """Yield the folder where it is a run, else the runs below it."""
    if is_run(folder):
        yield folder
    elif deeper > 0:
        for child in _folders_in(folder):
            yield from _runs_at(child, deeper - 1)


def is_run(folder: Path) -> bool:
    """Return whether a folder is that of a run, and no export of one."""
    return is_ours(folder) and not (folder / EXPORTED).exists()


def _folders_in(folder: Path) -> list[Path]:
    names = sorted(name for name in entries(folder) if not name.startswith(".") and name != LATEST)
    return [folder / name for name in names if (folder / name).is_dir() and not (folder / name).is_symlink()]


def _read(folder: Path, name: str, found: FoundRuns) -> None:
    try:
        found.rows.append(read_run(folder, name))
    except ValueError as error:
        found.damaged.append((folder, str(error)))


def _summary(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_LARGEST_SUMMARY))
    except OSError as error:
        raise ValueError(f"summary.json을 읽지 못했습니다: {disk_reason(error)}") from None
    except (ValueError, RecursionError):
        raise ValueError("summary.json이 깨졌습니다") from None
    if not isinstance(found, dict):
        raise ValueError("summary.json이 깨졌습니다")
    return found


def _finished(folder: Path, name: str, summary: Mapping[str, Any]) -> RunRow:
    quality = summary.get("quality") or {}  # runs of earlier versions have none
    metric, best = _best_metric(summary)
    metric = quality.get("metric") or metric
    split = quality.get("split") or ("test" if "test" in summary else "validation")
    interval = quality.get("interval")
    return RunRow(
        folder, name, "finished",
        task=str(summary["task"]), model=str(summary["model"]), data=str(summary["dataset"]), metric=str(metric),
        validation=_number(summary[best]), split=str(split), score=_number(summary[split].get(metric)),
        interval=(float(interval[0]), float(interval[1])) if interval else None,
        steps=int(summary["steps"]), seconds=float(summary["seconds"]),
        findings=tuple(str(one["kind"]) for one in quality.get("findings") or ()),
    )  # fmt: skip


def _best_metric(summary: Mapping[str, Any]) -> tuple[str, str]:
    """Return the name of the metric that chose the model, and its key in summary.json; KeyError without one."""
    for key in summary:
        if key.startswith(_BEST):
            return key.removeprefix(_BEST), key
    raise KeyError(_BEST)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _unfinished(folder: Path, name: str) -> RunRow:
    saved = checkpoints_in(folder / CHECKPOINTS)
    state: State = "running" if is_locked(folder) else "stopped" if saved else "unsaved"
    step = step_of(saved[-1]) if saved else None
    task, model, data = _named_in_settings(folder)
    return RunRow(folder, name, state, step, task, model, data, steps=_last_step(folder, step))


def _named_in_settings(folder: Path) -> tuple[str, str, str]:
    """Read the task, the model and the data of a run from its settings.yaml, there from its first evaluation on."""
    from config_manager import SAVED_SETTINGS, ConfigManager
    from finetuning.config.yaml_file import read_sections

    if not (folder / SAVED_SETTINGS).exists():
        return "", "", ""
    try:
        model = read_sections(folder / SAVED_SETTINGS).get("model") or {}
        data = ConfigManager.saved_dataset(folder)
    except FinetuningError as error:
        raise ValueError(f"{SAVED_SETTINGS}: {error.what}") from None
    return str(model.get("task", "")), str(model.get("name", "")), data or ""


def _last_step(folder: Path, saved: int | None) -> int | None:
    """Return the step of the last line of metrics.jsonl; that of the checkpoint where it cannot be read."""
    path = folder / "metrics.jsonl"
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 65536))
            return int(json.loads(file.read().splitlines()[-1])["step"])
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
        return saved
