"""The streams of the command line: what is piped in is UTF-8 or CP949, what is said can always be written."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator

_INPUT = "표준 입력"


def prepare_output() -> None:
    """Makes writing fail at nothing: UTF-8 into files and pipes, and `?` for what a terminal's encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="replace")


def abandon_output() -> None:
    """Lets what is still to be written go nowhere: its reader is gone, and Python would complain at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def input_lines() -> Iterator[str]:
    """The lines of standard input, read to its end once the first is asked for."""
    from finetuning.data.formats.encoding import decode

    yield from io.StringIO(decode(sys.stdin.buffer.read(), _INPUT), newline=None)


def read_line() -> str | None:
    """The next line of standard input, as soon as it is there; None at the end."""
    from finetuning.data.formats.encoding import decode

    line = sys.stdin.buffer.readline()
    return decode(line, _INPUT) if line else None
