"""Windows as this program meets it, simulated at the calls by which the two differ."""

from __future__ import annotations

import errno
import importlib
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_CHOSEN_BY_SYSTEM = ("accelerate", "datasets", "filelock", "psutil", "transformers")  # as they are imported
_NO_FUNCTIONS = ("fork", "uname", "sched_getaffinity", "geteuid", "mkfifo", "setsid", "killpg")
_NO_SIGNALS = ("SIGHUP", "SIGKILL", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGPIPE", "setitimer", "ITIMER_REAL")


def windows_error(number: int, winerror: int, path: object) -> OSError:
    """An error as Windows raises it: `winerror` is an attribute that other systems do not have."""
    error = OSError(number, os.strerror(number), str(path))
    error.winerror = winerror  # type: ignore[attr-defined]
    return error


def simulate_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """No fork, no hang-ups, kills or timers as signals, no `fcntl` and `resource`, no links, no fsync of folders."""
    for name in _CHOSEN_BY_SYSTEM:
        importlib.import_module(name)
    monkeypatch.setattr(sys, "platform", "win32")
    for name in _NO_FUNCTIONS:
        monkeypatch.delattr(os, name, raising=False)
    for name in _NO_SIGNALS:
        monkeypatch.delattr(signal, name, raising=False)
    for name in ("fcntl", "resource", "pwd", "grp", "termios"):
        monkeypatch.setitem(sys.modules, name, None)  # type: ignore[arg-type]

    def symlink(target: object, path: object, **_: Any) -> None:
        raise windows_error(errno.EINVAL, 1314, path)  # a privilege that users do not have

    real = os.open

    def open_no_folder(path: Any, *args: Any, **kwargs: Any) -> int:
        if not isinstance(path, int) and Path(path).is_dir():
            raise windows_error(errno.EACCES, 5, path)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(shutil, "_use_fd_functions", False)
    monkeypatch.setattr(os, "symlink", symlink)
    monkeypatch.setattr(os, "open", open_no_folder)
    monkeypatch.setattr("finetuning.files.time.sleep", lambda _: None)


class OpenFiles:
    """Files that another program has open: they can be neither replaced, renamed nor removed, nor can their folders.

    Args:
        is_open: Says for a path, each time it is asked, whether it is open.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, is_open: Callable[[Path], bool]) -> None:
        self.refused: list[Path] = []
        for name in ("replace", "rename", "unlink", "remove"):
            monkeypatch.setattr(os, name, self._refusing(getattr(os, name), is_open))

    def _refusing(self, real: Callable[..., Any], is_open: Callable[[Path], bool]) -> Callable[..., Any]:
        def call(*paths: Any, **kwargs: Any) -> Any:
            for path in paths:
                if kwargs.get("dir_fd") is None and isinstance(path, str | os.PathLike) and is_open(Path(path)):
                    self.refused.append(Path(path))
                    raise windows_error(errno.EACCES, 32, path)
            return real(*paths, **kwargs)

        return call
