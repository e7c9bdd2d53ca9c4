"""The signals that ask a run to stop: the step is finished and the state saved, or the program ends at once."""

from __future__ import annotations

import os
import signal
from typing import Any

from exceptions import StopRequested
from finetuning.commands.console import tell_at_once
from finetuning.device.peers import is_main, launches_several

_STOPPING = "\n중단 요청을 받았습니다. 지금 스텝을 마치고 상태를 저장합니다. 한 번 더 누르면 바로 끝납니다.\n"


class StopSignal:
    """Handles as Ctrl+C: SIGTERM, SIGHUP, what a batch system warns with (SIGUSR1, SIGXCPU), and Windows' Ctrl+Break.

    Before training, a signal ends the program. In training, the current step is finished first, and a second SIGINT or
    SIGTERM ends the program at once. SIGHUP and the warnings come more than once, so they never do that; where one was
    ignored at the start, as SIGHUP is by nohup, it stays so.

    Attributes:
        number: the signal that asked for a stop, or None.
        patient: whether a stop waits for the step to end; set by training.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.patient = False
        self._break = getattr(signal, "SIGBREAK", None)
        self._repeated = [getattr(signal, name) for name in ("SIGHUP", "SIGUSR1", "SIGXCPU") if hasattr(signal, name)]
        if launches_several():  # a launcher hands Ctrl+C on as SIGTERM, to processes that have had SIGINT already
            self._repeated.append(signal.SIGTERM)
        for number in (signal.SIGINT, signal.SIGTERM, self._break, *self._repeated):
            if number is not None and not (number in self._repeated and signal.getsignal(number) == signal.SIG_IGN):
                signal.signal(number, self._handle)

    def pending(self) -> int | None:
        """The signal that asked for a stop, or None."""
        return self.number

    def check(self) -> None:
        """Raise StopRequested if a stop was asked for."""
        if self.number is not None:
            raise StopRequested(self.number)

    def _handle(self, number: int, _frame: Any) -> None:
        number = signal.SIGINT if number == self._break else number
        if not self.patient:
            raise StopRequested(number)
        if self.number is not None and number in self._repeated:
            return
        if self.number not in (None, *self._repeated):
            os._exit(128 + number)
        self.number = number
        # not through the log: the signal may have come in the middle of a write to the same stream
        if is_main():
            tell_at_once(_STOPPING)


def ignore_launcher() -> None:
    """Let a process that is about to end do so: where another one has ended, torchrun sends SIGTERM to the rest."""
    if launches_several():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
