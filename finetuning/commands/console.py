"""Standard streams: read UTF-8 or CP949 from standard input; write without encoding errors, and log without failing."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, BinaryIO, TextIO

from exceptions import DataError, FinetuningError, ResourceError
from finetuning.cells import printable
from finetuning.device.peers import is_main

_INPUT, _OUTPUT = "표준 입력", "표준 출력"
_ITEM = "\n  - "
_TYPE_LINES = (
    "예측할 텍스트를 한 줄에 하나씩 입력하고, 끝나면 새 줄에서 Ctrl+D(Windows는 Ctrl+Z와 Enter)를 누르세요. "
    "파일은 --input으로 지정합니다."
)


class _Log(io.RawIOBase):
    """Standard error: writes what the stream takes and drops the rest, so that no message ends a run."""

    def __init__(self, stream: io.RawIOBase) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def write(self, data: Any) -> int:
        try:
            return self._stream.write(data) or len(data)
        except OSError:
            return len(data)


class _Results(_Log):
    """Standard output: a result that cannot be written is an error, unless its reader is gone."""

    def write(self, data: Any) -> int:
        try:
            written = self._stream.write(data)
            if written is None:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            return written
        except BrokenPipeError:
            raise
        except OSError as error:
            raise ResourceError(
                f"결과를 쓰지 못했습니다: {_reason(error)}",
                where=_OUTPUT,
                remedy="결과를 받을 곳에 쓸 수 있는지, 디스크에 남은 공간이 있는지 확인하세요.",
            ) from error


def prepare_output() -> None:
    """Replace the process's own standard output and error by streams that fail in the ways described here.

    Text is UTF-8 in files and pipes; a terminal gets `?` for characters that its encoding lacks. Standard error never
    fails. Standard output raises ResourceError where it cannot be written, and BrokenPipeError where the reader is
    gone. Descriptors that the shell closed are opened first: a file of the run would otherwise become standard error.
    """
    closed = _open_closed_descriptors()
    if sys.stdout is None or sys.stdout is sys.__stdout__:
        sys.stdout = _text(_Results(_raw(1, sys.stdout)), sys.stdout, is_line_buffered=False)
    elif isinstance(sys.stdout, io.TextIOWrapper):
        _set_encoding(sys.stdout)
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        sys.stderr = _text(_Log(_raw(2, sys.stderr)), sys.stderr, is_line_buffered=True)
    elif isinstance(sys.stderr, io.TextIOWrapper):
        _set_encoding(sys.stderr)
    if 0 in closed:
        sys.stdin = None  # the null device in its place would be an empty input


def settle_output() -> None:
    """Drop what standard output did not take, which Python would otherwise report when it flushes it at exit."""
    try:
        sys.stdout.flush()
    except (OSError, ResourceError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _open_closed_descriptors() -> list[int]:
    """Open the null device, in the direction that fails when used, for each standard descriptor that is closed."""
    closed = []
    for descriptor, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            closed.append(descriptor)
            nowhere = os.open(os.devnull, mode)
            if nowhere != descriptor:
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
    return closed


def tell(notes: Iterable[str]) -> None:
    """Write notes to standard error, a line each and once for all processes, before the log is set up."""
    for note in notes if is_main() else ():
        print(f"주의: {printable(note)}", file=sys.stderr)


def tell_at_once(text: str) -> None:
    """Write to standard error past its buffer, which a signal's handler may find in the middle of a write."""
    stream = sys.stderr
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    if raw is not None:
        with suppress(OSError):
            raw.write(text.encode(stream.encoding, errors="replace"))


def _raw(descriptor: int, replaced: TextIO | None) -> io.RawIOBase:
    """Return what writes to a descriptor: Windows' console takes Unicode through an object of its own alone."""
    buffer = getattr(replaced, "buffer", None)
    raw = getattr(buffer, "raw", buffer)  # `python -u` has no buffer
    if isinstance(raw, io.RawIOBase) and not raw.closed:
        return raw
    return io.FileIO(descriptor, "w", closefd=False)


def _text(raw: _Log, replaced: TextIO | None, *, is_line_buffered: bool) -> io.TextIOWrapper:
    """Return a text stream over `raw`, in the encoding of the stream that it replaces where that is a terminal."""
    is_terminal = raw.isatty()
    encoding = replaced.encoding if is_terminal and replaced is not None else "utf-8"
    is_line_buffered = is_line_buffered or is_terminal or bool(getattr(replaced, "write_through", False))
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=encoding, errors="replace", line_buffering=is_line_buffered
    )


def _set_encoding(stream: io.TextIOWrapper) -> None:
    stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="replace")


def _reason(error: OSError) -> str:
    from finetuning.files import disk_reason

    return "닫혀 있습니다." if error.errno == errno.EBADF else str(disk_reason(error))


def _input() -> BinaryIO:
    if sys.stdin is None:
        raise _nothing_to_read("표준 입력이 닫혀 있어 읽을 텍스트가 없습니다.")
    return sys.stdin.buffer


def _nothing_to_read(what: str) -> DataError:
    remedy = "읽을 파일을 --input으로 지정하거나, 텍스트를 파이프(|)나 <로 넣으세요."
    return DataError(what, where=_INPUT, remedy=remedy)


def error_text(error: FinetuningError) -> str:
    """Return an error for the terminal. Line breaks stay before the items of a list, and nowhere else."""
    what, where, remedy = map(_escaped_but_items, (error.what, error.where, error.remedy))
    return str(FinetuningError(what, where=where, remedy=remedy))


def _escaped_but_items(text: str) -> str:
    return _ITEM.join(printable(part) for part in text.split(_ITEM))


def input_lines() -> Iterator[str]:
    """Yield the lines of standard input. The first request reads it to the end; a person at a terminal is told so."""
    from finetuning.data.formats.encoding import decode

    if sys.stdin is not None and sys.stdin.isatty():
        print(_TYPE_LINES, file=sys.stderr, flush=True)
    text = decode(_input().read(), _INPUT)
    if not text.strip():
        raise _nothing_to_read("표준 입력에 텍스트가 없습니다.")
    yield from io.StringIO(text, newline=None)


def lines_as_they_come() -> Iterator[str]:
    """Yield the lines of standard input as they arrive, for a thread that reads while others work.

    It reads past the stream's buffer: a thread that waits there when the program ends would crash it.
    """
    from finetuning.data.formats.encoding import decode

    descriptor, rest = _input().fileno(), b""
    while block := os.read(descriptor, io.DEFAULT_BUFFER_SIZE):
        *lines, rest = (rest + block).split(b"\n")
        yield from (decode(line, _INPUT) for line in lines)
    if rest:
        yield decode(rest, _INPUT)


def read_line() -> str | None:
    """Read the next line of standard input as soon as it arrives; None at the end."""
    from finetuning.data.formats.encoding import decode

    line = _input().readline()
    return decode(line, _INPUT) if line else None
