"""Runs of the program in processes that are cheap to start, to be killed: forked from one that has imported it all."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.support.forked import forkserver

PHASES = ("starting", "loading", "tokenising", "training", "evaluating", "saving", "rotating", "keeping the best model")
_POLL_S = 0.001


class Victim:
    """One run of the program, begun at once; log: the file that its output is added to; place: that in a group."""

    def __init__(self, arguments: Sequence[str], log: Path, place: Mapping[str, str] = MappingProxyType({})) -> None:
        context = forkserver()
        self._phase = context.Value("i", 0, lock=False)
        self._process = context.Process(target=_run, args=(list(arguments), self._phase, log, dict(place)))
        self._process.start()

    def wait(self, seconds: float) -> None:
        """Wait for some seconds, or until the run has ended."""
        self._process.join(seconds)

    def wait_for(self, phase: str, at_most_s: float) -> None:
        """Wait until the run is at a phase or has ended."""
        end = time.perf_counter() + at_most_s
        while self._process.is_alive() and PHASES[self._phase.value] != phase and time.perf_counter() < end:
            self._process.join(_POLL_S)

    def send(self, signal_number: int) -> None:
        """Send the run a signal."""
        if self._process.pid is not None and self._process.is_alive():
            os.kill(self._process.pid, signal_number)

    def kill(self) -> str | None:
        """Kill the run; return its phase, or None if it had already ended."""
        self._process.kill()
        self._process.join()
        return PHASES[self._phase.value] if self._process.exitcode == -signal.SIGKILL else None

    def exit_code(self, at_most_s: float) -> int | None:
        """Return the run's exit code; None if it has not ended in time."""
        self._process.join(at_most_s)
        return self._process.exitcode


def _run(arguments: list[str], phase: Any, log: Path, place: dict[str, str]) -> None:
    os.environ.update(place)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    _tell_phases(phase)
    from finetuning_app import main

    code = main(arguments)
    sys.stderr.flush()
    os._exit(code)


def _tell_phases(phase: Any) -> None:
    """Write the run's phase to `phase`. Saving runs in a thread and takes precedence while it lasts."""
    import shutil

    from data_manager import DataManager
    from finetuning.checkpoints import store as checkpointing
    from finetuning.checkpoints import together
    from finetuning.commands import train
    from finetuning.inference.evaluator import Evaluator
    from training_manager import TrainingManager

    def tell(owner: Any, name: str, number: int, of: str = "") -> None:
        function: Callable[..., Any] = getattr(owner, name)

        def told(*args: Any, **kwargs: Any) -> Any:
            if of and of not in str(args[0]):
                return function(*args, **kwargs)
            before, phase.value = phase.value, number
            try:
                return function(*args, **kwargs)
            finally:
                phase.value = before

        setattr(owner, name, told)

    tell(DataManager, "load_splits", 1)
    tell(DataManager, "encode", 2)
    tell(TrainingManager, "train_window", 3)
    tell(Evaluator, "validate", 4)
    tell(checkpointing, "write_files", 5)
    tell(together, "write_shards", 5)
    tell(together, "facts_of", 5)
    tell(together, "write_state", 5)
    tell(shutil, "rmtree", 6, of="checkpoints/.step-")
    tell(train, "_keep_model", 7)
