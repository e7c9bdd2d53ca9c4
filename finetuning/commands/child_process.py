"""This program in a process of its own: its memory is given back when it ends, and a stop reaches it once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
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


def start_alone(words: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a command of this program that goes on when this process ends.

    Args:
        words: The words of the command.
        log: The file to which all is appended that it prints.

    Returns:
        The process.
    """
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-u", sys.argv[0], *words], stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            **_own_group(),
        )  # fmt: skip


def start_to_talk(words: Sequence[str], log: Path) -> subprocess.Popen[str]:
    """Start a command of this program that is written to and read from, a line at a time.

    Args:
        words: The words of the command.
        log: The file that gets what it says beside its answers.

    Returns:
        The process.
    """
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, sys.argv[0], *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file,
            encoding="utf-8", errors="replace", bufsize=1, **_own_group(),
        )  # fmt: skip


def ask_to_stop(pid: int) -> None:
    """Ask a command that was started here, or by an earlier process, to save its state and end."""
    import signal

    os.kill(pid, int(getattr(signal, "CTRL_BREAK_EVENT", signal.SIGINT)) if on_windows() else signal.SIGINT)


def _own_group() -> dict[str, Any]:
    if on_windows():
        return {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    return {"start_new_session": True}


def _signal_for_child(asked: StopRequested) -> int:
    import signal

    number = asked.exit_code - 128
    return int(getattr(signal, "CTRL_BREAK_EVENT", number)) if on_windows() else number
