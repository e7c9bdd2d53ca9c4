"""A limit on the time and memory of Python code that others wrote, such as a chat template that loops for ever."""

from __future__ import annotations

import ctypes
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_CHECK_S = 0.1
_PAGES = "/proc/self/statm"
_PAGE = 4096


class LimitPassed(Exception):
    """The code took longer, or more memory, than it may."""


@contextmanager
def limited(seconds: float, memory: int) -> Iterator[None]:
    """Stop the Python code inside the block with LimitPassed where it passes a limit.

    The main thread is stopped by a timer's signal, which costs a microsecond; any other thread, and all where there is
    no such timer, by an exception that a second thread sets. A single call into C is not stopped before it returns.

    Args:
        seconds: Longest time.
        memory: Most bytes by which the process may grow.

    Raises:
        LimitPassed: A limit was passed.
    """
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer"):
        yield from _by_signal(seconds, memory)
    else:
        yield from _by_thread(seconds, memory)


def _by_signal(seconds: float, memory: int) -> Iterator[None]:
    end, most = time.monotonic() + seconds, 0

    def check(number: int, frame: FrameType | None) -> None:
        nonlocal most
        most = most or _resident() + memory
        if time.monotonic() > end or _resident() > most:
            raise LimitPassed

    before = signal.signal(signal.SIGALRM, check)
    try:
        signal.setitimer(signal.ITIMER_REAL, _CHECK_S, _CHECK_S)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _by_thread(seconds: float, memory: int) -> Iterator[None]:
    done, lock, target = threading.Event(), threading.Lock(), threading.get_ident()

    def watch() -> None:
        end, most = time.monotonic() + seconds, _resident() + memory
        while not done.wait(_CHECK_S):
            with lock:
                if not done.is_set() and (time.monotonic() > end or _resident() > most):
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(target), ctypes.py_object(LimitPassed))
                    return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        with lock:
            done.set()


def _resident() -> int:
    """Return the bytes of memory that the process holds; 0 where the system does not say."""
    try:
        with open(_PAGES, encoding="ascii") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0
