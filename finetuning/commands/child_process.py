"""This program in a process of its own: its memory is given back when it ends, and a stop reaches it once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from exceptions import StopRequested
from finetuning.files import on_windows


def run_in_child(words: Sequence[str]) -> int:
    """Run a command of this program and wait for it.

    The child is in a session of its own, so that Ctrl+C in a terminal reaches it through this process alone: the first
    one lets it save its state, and the second one ends it.

    Args:
        words: The words of the command.

    Returns:
        Its exit code; the negative number of the signal that killed it.

    Raises:
        StopRequested: The user asked for a stop, and the child has ended.
    """
    process = subprocess.Popen([sys.executable, sys.argv[0], *words], stdin=subprocess.DEVNULL, **_own_group())
    stopped: StopRequested | None = None
    while True:
        try:
            code = process.wait()
            break
        except StopRequested as asked:
            stopped = asked
            process.send_signal(_signal_for_child(asked))
    if stopped is not None:
        raise stopped
    return code


def _own_group() -> dict[str, Any]:
    if on_windows():
        return {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    return {"start_new_session": True}


def _signal_for_child(asked: StopRequested) -> int:
    import signal

    number = asked.exit_code - 128
    return int(getattr(signal, "CTRL_BREAK_EVENT", number)) if on_windows() else number
