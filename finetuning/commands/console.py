"""Standard streams: read UTF-8 or CP949 from standard input, and write without encoding errors."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator

from exceptions import FinetuningError
from finetuning.cells import printable

_INPUT = "표준 입력"
_ITEM = "\n  - "


def prepare_output() -> None:
    """Use UTF-8 for files and pipes; on a terminal, write `?` for characters that its encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="replace")


def abandon_output() -> None:
    """Redirect stdout and stderr to the null device after the reader has closed the pipe.

    Otherwise Python reports an error when it flushes them at exit.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def error_text(error: FinetuningError) -> str:
    """Return an error for the terminal. Line breaks stay before the items of a list, and nowhere else."""
    what, where, remedy = map(_escaped_but_items, (error.what, error.where, error.remedy))
    return str(FinetuningError(what, where=where, remedy=remedy))


def _escaped_but_items(text: str) -> str:
    return _ITEM.join(printable(part) for part in text.split(_ITEM))


def input_lines() -> Iterator[str]:
    """Yield the lines of standard input. The first request reads it to the end."""
    from finetuning.data.formats.encoding import decode

    yield from io.StringIO(decode(sys.stdin.buffer.read(), _INPUT), newline=None)


def read_line() -> str | None:
    """Read the next line of standard input as soon as it arrives; None at the end."""
    from finetuning.data.formats.encoding import decode

    line = sys.stdin.buffer.readline()
    return decode(line, _INPUT) if line else None
