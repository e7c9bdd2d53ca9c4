"""Experiment trackers: TensorBoard, W&B, MLflow, Trackio and SwanLab, through accelerate's classes.

A new tracker is one row in `TRACKERS`: one of accelerate's classes, or our own with the methods of `Tracker`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from exceptions import SettingsError

_SETTING = "logging.trackers"
_PROJECT = "finetuning-python"


@dataclass(frozen=True)
class TrackedRun:
    """Description of a run for trackers.

    Attributes:
        name: How the tracker names the run.
        output_dir: The folder of the run.
        resumed_step: The step of the checkpoint that the run continues from, 0 for a new run.
        settings: All settings by dotted key, as values that every tracker can store.
    """

    name: str
    output_dir: Path
    resumed_step: int
    settings: Mapping[str, bool | int | float | str]


class Tracker(Protocol):
    """Receives a run's records. Only the main process has one."""

    name: str

    def start(self, run: TrackedRun) -> None:
        """Begin a run and store its settings."""

    def log(self, record: Mapping[str, Any]) -> None:
        """Store one record: `kind` (train or eval), `step`, `epoch` and numbers by name; None is no number."""

    def finish(self) -> None:
        """End the run and send the remaining records."""


class AccelerateTracker:
    """A tracker of `accelerate.tracking`.

    Args:
        name: The name in `logging.trackers`.
        build: Creates accelerate's tracker for a run.
    """

    def __init__(self, name: str, build: Callable[[TrackedRun], Any]) -> None:
        self.name, self._build = name, build
        self._tracker: Any = None

    def start(self, run: TrackedRun) -> None:
        self._tracker = self._build(run)
        self._tracker.start()
        self._tracker.store_init_configuration(dict(run.settings))

    def log(self, record: Mapping[str, Any]) -> None:
        kind, step = record["kind"], record["step"]
        values = {
            name if name == "epoch" else f"{kind}/{name}": value
            for name, value in record.items()
            if name not in ("kind", "step") and isinstance(value, int | float)
        }
        self._tracker.log(values, step=step)

    def finish(self) -> None:
        self._tracker.finish()


def _tensorboard(run: TrackedRun) -> Any:
    """Write to output_dir/tensorboard; a resumed run hides what was logged after its checkpoint."""
    from accelerate.tracking import TensorBoardTracker

    folder = run.output_dir / "tensorboard"
    if run.resumed_step == 0:
        shutil.rmtree(folder, ignore_errors=True)
        return TensorBoardTracker(folder.name, run.output_dir)
    return TensorBoardTracker(folder.name, run.output_dir, purge_step=run.resumed_step + 1)


def _wandb(run: TrackedRun) -> Any:
    from accelerate.tracking import WandBTracker

    return WandBTracker(_PROJECT, name=run.name, dir=str(run.output_dir))


def _mlflow(run: TrackedRun) -> Any:
    from accelerate.tracking import MLflowTracker

    return MLflowTracker(_PROJECT, run_name=run.name)


def _trackio(run: TrackedRun) -> Any:
    from accelerate.tracking import TrackioTracker

    return TrackioTracker(_PROJECT, name=run.name)


def _swanlab(run: TrackedRun) -> Any:
    from accelerate.tracking import SwanLabTracker

    return SwanLabTracker(_PROJECT, experiment_name=run.name, logdir=str(run.output_dir / "swanlab"))


@dataclass(frozen=True)
class TrackerRow:
    """One tracker.

    Attributes:
        make: Creates it.
        package: The package that must be installed for it, or None.
    """

    make: Callable[[], Tracker]
    package: str | None = None


def by_accelerate(name: str, build: Callable[[TrackedRun], Any]) -> TrackerRow:
    """Return the row of one of accelerate's trackers, whose name is also that of its package.

    Args:
        name: The name in `logging.trackers`.
        build: Creates accelerate's tracker for a run.

    Returns:
        The row.
    """
    return TrackerRow(lambda: AccelerateTracker(name, build), name)


# name in `logging.trackers` → tracker
TRACKERS: dict[str, TrackerRow] = {
    "tensorboard": by_accelerate("tensorboard", _tensorboard),
    "wandb": by_accelerate("wandb", _wandb),
    "mlflow": by_accelerate("mlflow", _mlflow),
    "trackio": by_accelerate("trackio", _trackio),
    "swanlab": by_accelerate("swanlab", _swanlab),
}


def check_trackers(names: Sequence[str]) -> None:
    """Check, before any work, that the trackers are known and installed.

    Args:
        names: The setting `logging.trackers`.

    Raises:
        SettingsError: A name is unknown, or its package is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise SettingsError(
                f"알 수 없는 tracker입니다: {name}",
                where=_SETTING,
                remedy=f"다음 중에서 고르세요: {', '.join(TRACKERS)}",
            )
        package = TRACKERS[name].package
        if package is not None and find_spec(package) is None:
            raise SettingsError(
                f"{package} 패키지가 설치되어 있지 않습니다.",
                where=_SETTING,
                remedy=f"`pip install {package}` 명령으로 설치하거나, {_SETTING} 목록에서 빼세요.",
            )


def build_trackers(names: Sequence[str]) -> list[Tracker]:
    """Create the trackers that a run names, after checking them.

    Args:
        names: The setting `logging.trackers`.

    Returns:
        One tracker a name; a name that is repeated counts once.

    Raises:
        SettingsError: A name is unknown, or its package is not installed.
    """
    check_trackers(names)
    return [TRACKERS[name].make() for name in dict.fromkeys(names)]


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Flatten nested settings to dotted keys; lists and null become JSON text."""
    found: dict[str, bool | int | float | str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= flattened(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = (
                value if isinstance(value, bool | int | float | str) else json.dumps(value, ensure_ascii=False)
            )
    return found
