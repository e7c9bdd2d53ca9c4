"""Experiment trackers: TensorBoard, W&B, MLflow, Trackio and SwanLab, through accelerate's classes.

A new tracker is one row in `TRACKERS`: one of accelerate's classes, or our own with the methods of `Tracker`.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from exceptions import SettingsError
from finetuning.reporting.sent_records import SentRecords

_log = logging.getLogger(__name__)
_SETTING = "logging.trackers"
_PROJECT = "finetuning-python"
_BUFFERED_S = 5.0  # the trackers send from threads or processes of their own, some times a second


@dataclass(frozen=True)
class TrackedRun:
    """Description of a run for trackers.

    Attributes:
        name: How the tracker names the run.
        output_dir: The folder of the run.
        resumed_step: The step of the checkpoint that the run continues from, 0 for a new run.
        settings: All settings by dotted key, as values that every tracker can store.
        tags: Words by which the run is found.
        continued: How the tracker finds the run that it already has; empty where it begins one.
    """

    name: str
    output_dir: Path
    resumed_step: int
    settings: Mapping[str, bool | int | float | str]
    tags: tuple[str, ...] = ()
    continued: Mapping[str, str] = field(default_factory=dict)


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
        found_by: Returns, of the started tracker, how its run is found again. A resumed run then goes on in it, and
            records that were sent are left out. None for a tracker that hides what came after the checkpoint.
        buffered_s: Seconds that a record may stay in the tracker's buffer, where a killed process loses it.
    """

    def __init__(
        self,
        name: str,
        build: Callable[[TrackedRun], Any],
        found_by: Callable[[Any], Mapping[str, str]] | None = None,
        buffered_s: float = 0.0,
    ) -> None:
        self.name, self._build, self._found_by, self._buffered_s = name, build, found_by, buffered_s
        self._tracker: Any = None
        self._sent: SentRecords | None = None

    def start(self, run: TrackedRun) -> None:
        is_new = run.resumed_step == 0
        if self._found_by is not None:
            self._sent = SentRecords(run.output_dir, self.name, self._buffered_s)
            if not is_new:
                self._sent.read()
                run = replace(run, continued=self._sent.run)
                is_new = not run.continued
        self._tracker = self._build(run)
        self._tracker.start()
        if self._sent is not None and self._found_by is not None:
            self._sent.begin(self._found_by(self._tracker))
        if is_new:  # trackers keep the settings of a run, and some refuse others
            self._tracker.store_init_configuration(dict(run.settings))

    def log(self, record: Mapping[str, Any]) -> None:
        kind, step = record["kind"], record["step"]
        if self._sent is not None and self._sent.has(kind, step):
            return
        values = {
            name if name == "epoch" else f"{kind}/{name}": value
            for name, value in record.items()
            if name not in ("kind", "step") and isinstance(value, int | float)
        }
        self._tracker.log(values, step=step)
        if self._sent is not None:
            self._sent.add(kind, step)

    def finish(self) -> None:
        self._tracker.finish()
        if self._sent is not None:
            self._sent.finish()


def _tensorboard(run: TrackedRun) -> Any:
    """Write to output_dir/tensorboard; a resumed run hides what was logged after its checkpoint."""
    from accelerate.tracking import TensorBoardTracker

    folder = run.output_dir / "tensorboard"
    if run.resumed_step == 0:
        shutil.rmtree(folder, ignore_errors=True)
        return TensorBoardTracker(folder.name, run.output_dir)
    return TensorBoardTracker(folder.name, run.output_dir, purge_step=run.resumed_step + 1)


def _wandb(run: TrackedRun) -> Any:
    """Send to W&B; without a login, keep the records in output_dir/wandb, which `wandb sync` sends later."""
    from accelerate.tracking import WandBTracker

    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    chosen = _is_set("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE") or _is_in_netrc(host)
    own = {} if chosen else {"mode": "offline"}
    if not chosen:
        _tell_offline("wandb", f"wandb sync {run.output_dir / 'wandb' / 'offline-run-*'}")
    continued = {"id": run.continued["id"], "resume": "allow"} if run.continued else {}
    return WandBTracker(_PROJECT, name=run.name, dir=str(run.output_dir), tags=list(run.tags), **own, **continued)


def _mlflow(run: TrackedRun) -> Any:
    """Log to the store that MLflow's own variables name, by default a local one; a resumed run to where it began."""
    import mlflow
    from accelerate.tracking import MLflowTracker

    if run.continued and not _is_set("MLFLOW_TRACKING_URI"):
        mlflow.set_tracking_uri(run.continued["tracking_uri"])
    tags = {"tags": ", ".join(run.tags)} if run.tags else None
    return MLflowTracker(_PROJECT, run_id=run.continued.get("id"), run_name=run.name, tags=tags)


def _mlflow_run(tracker: Any) -> Mapping[str, str]:
    """Return the id of the run and where it is stored; a store below the current folder by its whole path."""
    import mlflow

    scheme, slashes, path = mlflow.get_tracking_uri().partition("sqlite:///")
    uri = f"{scheme}{slashes}{Path(path).absolute() if slashes else path}"
    return {"id": tracker.tracker.info.run_id, "tracking_uri": uri}


def _trackio(run: TrackedRun) -> Any:
    """Log to Trackio's local store, or to the Space that its own variables name. It knows runs by their names."""
    from accelerate.tracking import TrackioTracker

    resume = "allow" if run.continued else "never"
    return TrackioTracker(_PROJECT, name=run.continued.get("name", run.name), resume=resume)


def _swanlab(run: TrackedRun) -> Any:
    """Send to SwanLab; without a login, keep the records in output_dir/swanlab, which `swanlab sync` sends later."""
    from accelerate.tracking import SwanLabTracker

    homes = (Path.cwd() / ".swanlab", Path(os.environ.get("SWANLAB_SAVE_DIR") or Path.home() / ".swanlab"))
    chosen = _is_set("SWANLAB_MODE", "SWANLAB_API_KEY") or any((home / ".netrc").exists() for home in homes)
    folder = run.output_dir / "swanlab"
    own = {} if chosen else {"mode": "offline"}
    if not chosen:
        _tell_offline("swanlab", f"swanlab sync {folder / 'run-*'}")
    continued = {"id": run.continued["id"], "resume": "allow"} if run.continued else {}
    return SwanLabTracker(
        _PROJECT, experiment_name=run.name, logdir=str(folder), tags=list(run.tags), **own, **continued
    )


def _is_set(*names: str) -> bool:
    return any(os.environ.get(name) for name in names)


def _is_in_netrc(host: str) -> bool:
    """Return whether a login for a host is kept where W&B keeps it."""
    for path in (os.environ.get("NETRC"), Path.home() / ".netrc", Path.home() / "_netrc"):
        with suppress(OSError, NetrcParseError):
            if path and netrc(path).authenticators(host) is not None:
                return True
    return False


def _tell_offline(name: str, command: str) -> None:
    _log.info("%s 로그인 정보가 없어 이 컴퓨터에만 기록합니다. 나중에 올리려면: %s", name, command)


@dataclass(frozen=True)
class TrackerRow:
    """One tracker.

    Attributes:
        make: Creates it.
        package: The package that must be installed for it, or None.
    """

    make: Callable[[], Tracker]
    package: str | None = None


def by_accelerate(
    name: str,
    build: Callable[[TrackedRun], Any],
    found_by: Callable[[Any], Mapping[str, str]] | None = None,
    buffered_s: float = 0.0,
) -> TrackerRow:
    """Return the row of one of accelerate's trackers, whose name is also that of its package.

    Args:
        name: The name in `logging.trackers`.
        build: Creates accelerate's tracker for a run.
        found_by: Returns how its run is found again; see `AccelerateTracker`.
        buffered_s: Seconds that a record may stay in its buffer.

    Returns:
        The row.
    """
    return TrackerRow(lambda: AccelerateTracker(name, build, found_by, buffered_s), name)


# name in `logging.trackers` → tracker
TRACKERS: dict[str, TrackerRow] = {
    "tensorboard": by_accelerate("tensorboard", _tensorboard),
    "wandb": by_accelerate("wandb", _wandb, lambda started: {"id": started.tracker.id}, _BUFFERED_S),
    "mlflow": by_accelerate("mlflow", _mlflow, _mlflow_run),
    "trackio": by_accelerate("trackio", _trackio, lambda started: {"name": started.tracker.name}, _BUFFERED_S),
    "swanlab": by_accelerate("swanlab", _swanlab, lambda started: {"id": started.tracker.id}, _BUFFERED_S),
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
