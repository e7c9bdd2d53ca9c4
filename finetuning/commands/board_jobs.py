"""The runs that the page starts: a record of each beside the runs, a queue, and processes that outlive the page."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from exceptions import SettingsError
from finetuning.checkpoints.names import CHECKPOINTS, checkpoints_in
from finetuning.commands.child_process import ask_to_stop, start_alone
from finetuning.commands.command_line import words_to_resume
from finetuning.files import command_of_this_program, discard, write_json
from finetuning.web.work import Job, JobState

_LOG_SHOWN = 64 * 1024  # bytes
_LOOKED_S = 1.0
Start = Callable[[Sequence[str], Path], "subprocess.Popen[bytes]"]


@dataclass(frozen=True)
class _Record:
    """A run as it is written down.

    Attributes:
        words: The words of its command.
        folder: The run's folder.
        asked: When it was asked for last, in seconds since 1970; the queue is in this order.
        pid: Its process; 0 while it waits.
        born: When the process began, by which a later process of the same number is told apart.
        is_stopping: Whether it was asked to stop.
    """

    words: tuple[str, ...]
    folder: str
    asked: float
    pid: int = 0
    born: float = 0.0
    is_stopping: bool = False


class Jobs:
    """The runs of one folder that were started on the page. They train one after the other.

    Args:
        place: The folder of the records.
        start: Starts a command of this program with a file for what it prints.
    """

    def __init__(self, place: Path, start: Start = start_alone) -> None:
        self._place, self._start = place, start
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._keep_starting, name="board queue", daemon=True)
        self._watch.start()

    def close(self) -> None:
        """Start no more runs; those that train go on."""
        self._ended.set()

    def add(self, name: str, words: Sequence[str], folder: Path) -> Job:
        """Queue a run, and start it at once where none trains."""
        with self._lock:
            self._place.mkdir(parents=True, exist_ok=True)
            discard(self._log(name))
            self._write(name, _Record(tuple(words), str(folder), time.time()))
            self.start_next()
            return self.job(name)

    def resume(self, name: str) -> None:
        """Queue a run that stopped, to go on where it was."""
        with self._lock:
            record = self._read(name)
            if self._state(name, record) not in ("stopped", "failed"):  # it trains, waits, or is done
                return
            discard(self._log(name))  # an error of the attempt before is none of this one
            words = words_to_resume(record.words) if _has_checkpoint(record) else list(record.words)
            self._write(name, replace(record, words=tuple(words), asked=time.time(), pid=0, is_stopping=False))
            self.start_next()

    def stop(self, name: str) -> None:
        """Let a run save its state and end; take one that waits out of the queue."""
        with self._lock:
            record = self._read(name)
            if record.pid == 0:
                discard(self._place / f"{name}.json")
            elif self._is_alive(name, record) and not record.is_stopping:  # a second signal would not let it save
                ask_to_stop(record.pid)
                self._write(name, replace(record, is_stopping=True))

    def start_next(self) -> None:
        """Start the run that has waited longest, where none trains."""
        with self._lock:
            records = self._records()
            if any(record.pid and self._is_alive(name, record) for name, record in records.items()):
                return
            waiting = sorted((record.asked, name) for name, record in records.items() if record.pid == 0)
            if not waiting:
                return
            name = waiting[0][1]
            child = self._start(records[name].words, self._log(name))
            self._children[name] = child
            born = psutil.Process(child.pid).create_time()
            self._write(name, replace(records[name], pid=child.pid, born=born))

    def all(self) -> list[Job]:
        """Return every run, the one that was asked for last first, without what it printed."""
        records = self._records()
        return [self._job(name, record) for name, record in sorted(records.items(), key=lambda one: -one[1].asked)]

    def job(self, name: str) -> Job:
        """Return one run, with the end of what it printed."""
        job = self._job(name, self._read(name))
        return replace(job, log=_end_of(self._log(name)))

    def _job(self, name: str, record: _Record) -> Job:
        state = self._state(name, record)
        return Job(name, state, Path(record.folder), record.words, command_of_this_program(*record.words))

    def _state(self, name: str, record: _Record) -> JobState:
        if record.pid == 0:
            return "queued"
        if self._is_alive(name, record):
            return "stopping" if record.is_stopping else "running"
        summary = Path(record.folder) / "summary.json"
        if summary.exists() and summary.stat().st_mtime >= record.asked - 1:
            return "finished"
        if record.is_stopping and "오류:" not in _end_of(self._log(name)):
            return "stopped"
        return "failed"

    def _is_alive(self, name: str, record: _Record) -> bool:
        child = self._children.get(name)
        if child is not None and child.pid == record.pid:
            return child.poll() is None
        try:
            process = psutil.Process(record.pid)
            is_same = abs(process.create_time() - record.born) < 1
            return bool(is_same and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.Error:
            return False

    def _keep_starting(self) -> None:
        while not self._ended.wait(_LOOKED_S):
            self.start_next()

    def _records(self) -> dict[str, _Record]:
        found = {}
        for path in self._place.glob("*.json"):
            try:
                found[path.stem] = self._read(path.stem)
            except SettingsError:
                continue
        return found

    def _read(self, name: str) -> _Record:
        path = self._place / f"{name}.json"
        try:
            if path.parent != self._place:
                raise ValueError(name)
            record = _Record(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            raise SettingsError(f"'{name}' 학습의 기록이 없습니다.", where=str(path)) from None
        return replace(record, words=tuple(record.words))

    def _write(self, name: str, record: _Record) -> None:
        write_json(self._place / f"{name}.json", asdict(record))

    def _log(self, name: str) -> Path:
        return self._place / f"{name}.log"


def _has_checkpoint(record: _Record) -> bool:
    return bool(checkpoints_in(Path(record.folder) / CHECKPOINTS))


def _end_of(path: Path) -> str:
    """Return the last lines of a file, "" where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            size = file.tell()
            file.seek(max(0, size - _LOG_SHOWN))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    return text if size <= _LOG_SHOWN else text.partition("\n")[2]
