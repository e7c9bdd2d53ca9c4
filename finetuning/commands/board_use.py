"""The models that the page tries: each in a process of its own, whose memory is given back when it ends."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exceptions import FinetuningError, ModelError
from finetuning.commands.child_process import start_to_talk
from finetuning.web.printed import error_in
from finetuning.web.work import Model

_MOST, _IDLE_S, _LOOKED_S = 2, 600.0, 30.0
Start = Callable[[Sequence[str], Path], "subprocess.Popen[str]"]
Weights = tuple[tuple[str, int, int], ...]  # name, bytes and time of change of each file of weights


@dataclass
class _Talk:
    """A model that answers.

    Attributes:
        words: The command that runs it.
        weights: The files that it was loaded from, as they were.
        process: Its process.
        log: What it says beside its answers.
        model: What it takes.
        used: When it was asked last, by the monotonic clock.
        lock: Held while it is asked.
        writing: Held while a line is written.
    """

    words: tuple[str, ...]
    weights: Weights
    process: subprocess.Popen[str]
    log: Path
    model: Model = field(default_factory=lambda: Model("", ()))
    used: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)  # whoever reads the end of an answer releases it
    writing: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, request: object) -> Iterator[dict[str, Any]]:
        """Write a line and yield the lines of the answer, the last of which is no piece."""
        with self.lock:
            self.used = time.monotonic()
            try:
                self.write(request)
            except OSError:
                raise self.gone() from None
            is_whole = False
            try:
                while not is_whole:
                    is_whole = True  # as an error ends an answer
                    answer = self.answer()
                    is_whole = "piece" not in answer
                    yield answer
            finally:
                if not is_whole:
                    self.stop()
                while not is_whole:  # nobody reads the rest, which would be taken for the next answer
                    is_whole = "piece" not in self.answer()

    def stop(self) -> None:
        """End the answer that grows, where the model can."""
        if self.model.chats:
            with suppress(OSError):  # the process has ended, and so has the answer
                self.write({"stop": True})

    def write(self, request: object) -> None:
        """Write a line; OSError where the process has ended."""
        assert self.process.stdin is not None
        with self.writing:
            self.process.stdin.write(json.dumps(request, ensure_ascii=False) + "\n")
            self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Read the next line; raise the error that it tells, or ModelError where the process has ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise self.gone()
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            what, where, remedy = found["error"]
            raise FinetuningError(what, where=where, remedy=remedy)
        return found

    def gone(self) -> ModelError:
        """Return the error of a process that has ended, as it printed it."""
        self.process.wait()
        said = self.log.read_text(encoding="utf-8", errors="replace")
        what, where, remedy = error_in(said) or ("모델이 답하지 않고 끝났습니다.", "", said[-300:])
        return ModelError(what, where=where, remedy=remedy)

    def end(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.wait()


class Talks:
    """At most two models at a time; one that nobody asks for ten minutes is given up.

    Args:
        start: Starts a command of this program that is talked to.
    """

    def __init__(self, start: Start = start_to_talk) -> None:
        self._start, self._lock = start, threading.RLock()
        self._talks: dict[str, _Talk] = {}
        self._logs = tempfile.TemporaryDirectory(prefix="board-")
        self._ended = threading.Event()
        threading.Thread(target=self._give_up_idle, name="board models", daemon=True).start()

    def load(self, model: str, words: Sequence[str]) -> Model:
        """Load a model by a command, unless the same command runs it already, from the files that are there now."""
        weights = weights_in(Path(model))
        with self._lock:
            found = self._talks.get(model)
            if found is not None and (found.words, found.weights) == (tuple(words), weights) and (
                found.process.poll() is None
            ):  # fmt: skip
                return found.model
            if found is not None:
                self._talks.pop(model).end()
            while len(self._talks) >= _MOST:
                self._talks.pop(min(self._talks, key=lambda name: self._talks[name].used)).end()
            log = Path(self._logs.name) / f"{len(list(Path(self._logs.name).iterdir()))}.log"
            talk = _Talk(tuple(words), weights, self._start(words, log), log, used=time.monotonic())
            self._talks[model] = talk
        try:
            said = talk.answer()
        except BaseException:
            with self._lock:
                self._talks.pop(model, None)
            raise
        columns = [(str(name), str(role)) for name, role in said["columns"]]
        talk.model = Model(str(said["task"]), columns, bool(said["chats"]))
        return talk.model

    def ask(self, model: str, request: object) -> Iterator[Mapping[str, Any]]:
        """Yield the lines of a model's answer."""
        talk = self._talks.get(model)
        if talk is None:
            raise ModelError(
                "불러 둔 모델이 없습니다(10분 동안 쓰지 않으면 메모리에서 내립니다).",
                where=model,
                remedy="다시 불러오세요.",
            )
        if talk.weights != weights_in(Path(model)):
            raise ModelError(
                "이 모델은 불러온 뒤에 다시 학습되어, 불러 둔 것은 예전 모델입니다.",
                where=model,
                remedy="불러오기를 다시 누르면 새 모델이 답합니다.",
            )
        yield from talk.ask(request)

    def stop(self, model: str) -> None:
        """End the answer that grows, where the model can; nothing where none does."""
        talk = self._talks.get(model)
        if talk is not None:
            talk.stop()

    def close(self) -> None:
        """End all of them."""
        self._ended.set()
        with self._lock:
            for talk in self._talks.values():
                talk.end()
            self._talks.clear()
        self._logs.cleanup()

    def _give_up_idle(self) -> None:
        while not self._ended.wait(_LOOKED_S):
            with self._lock:
                idle = [name for name, talk in self._talks.items() if time.monotonic() - talk.used > _IDLE_S]
                for name in idle:
                    self._talks.pop(name).end()


def weights_in(folder: Path) -> Weights:
    """Return the files of weights of a model's folder; they change when it is trained again."""
    with suppress(OSError):
        found = [(path.name, path.stat()) for path in sorted(folder.glob("*.safetensors"))]
        return tuple((name, state.st_size, state.st_mtime_ns) for name, state in found)
    return ()
