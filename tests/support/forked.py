"""Runs of the program in processes that are cheap to start: forked from one that has imported it all."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.support.paths import ROOT


def forkserver() -> ForkServerContext:
    """The server that forks the processes, one for all tests of a process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.preloaded"])
    return context


@dataclass(frozen=True)
class Start:
    """How a process begins.

    Attributes:
        arguments: The words after the program's name.
        cwd: Its working directory.
        streams: The files of standard input, output and error; None is a stream that is closed.
        environment: What its environment has beside this process's.
        prepare: A function of a module, called before the program.
        program: What is run: takes the words and returns the exit code; None is finetuning_app.py.
    """

    arguments: Sequence[str]
    cwd: Path
    streams: Sequence[Path | str | None]
    environment: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[], None] | None = None
    program: Callable[[list[str]], int] | None = None

    def start(self) -> Any:
        """Fork the process."""
        made = {**vars(self), "environment": {**os.environ, **self.environment}}
        process = forkserver().Process(target=_run, kwargs=made)
        process.start()
        return process


def run_forked(arguments: Sequence[str], cwd: Path, stdin: str, at_most_s: float) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of a command; TimeoutError where it does not end in time."""
    with tempfile.TemporaryDirectory() as name:
        return _run_all([Start(arguments, cwd, _files(Path(name) / "0", stdin))], at_most_s)[0]


def run_group(
    processes: int,
    arguments: Sequence[str],
    cwd: Path,
    stdin: str = "",
    at_most_s: float = 200,
    prepare: Callable[[], None] | None = None,
    program: Callable[[list[str]], int] | None = None,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> list[tuple[int, str, str]]:
    """What `run_forked` returns, of each process of a group as torchrun starts it; process 0 alone finds the input."""
    with tempfile.TemporaryDirectory() as name:
        starts = [
            Start(
                arguments,
                cwd,
                _files(Path(name) / str(rank), "" if rank else stdin),
                {**place, **environment},
                prepare,
                program,
            )
            for rank, place in enumerate(places_in_group(processes))
        ]
        return _run_all(starts, at_most_s)


def run_on_machines(
    folders: Sequence[Path],
    arguments: Sequence[str],
    each: int = 1,
    at_most_s: float = 200,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> list[tuple[int, str, str]]:
    """What `run_group` returns, of machines with so many processes each, whose working directory is their own disk."""
    with tempfile.TemporaryDirectory() as name:
        starts = list[Start]()
        for rank, place in enumerate(places_in_group(each * len(folders))):
            machine = {"GROUP_RANK": str(rank // each), "GROUP_WORLD_SIZE": str(len(folders)),
                       "LOCAL_RANK": str(rank % each), "LOCAL_WORLD_SIZE": str(each)}  # fmt: skip
            files = _files(Path(name) / str(rank), "")
            starts.append(Start(arguments, folders[rank // each], files, {**place, **machine, **environment}))
        return _run_all(starts, at_most_s)


def stop_at(arguments: Sequence[str], line: str, signal_number: int) -> tuple[int, str]:
    """Start a run, send a signal when its log says `line`, and return its exit code and log."""
    with tempfile.TemporaryDirectory() as name:
        pipe = Path(name) / "err"
        os.mkfifo(pipe)
        process = Start(arguments, ROOT, (os.devnull, os.devnull, pipe), prepare=answer_signals).start()
        guard = threading.Timer(200, process.kill)
        guard.start()
        log: list[str] = []
        with pipe.open(encoding="utf-8") as lines:
            for said in lines:
                log.append(said)
                if line in said:
                    os.kill(process.pid, signal_number)
                    line = "\0"
        process.join()
        guard.cancel()
        return process.exitcode, "".join(log)


def answer_signals() -> None:
    """Undo what `nohup` or a background shell around the tests has the run inherit: ignored signals."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def places_in_group(processes: int) -> list[dict[str, str]]:
    """What torchrun puts into the environment of each process of a group."""
    port, number = free_port(), str(processes)
    return [
        {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": number, "LOCAL_WORLD_SIZE": number,
         "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "none", "OMP_NUM_THREADS": "1"}
        for rank in range(processes)
    ]  # fmt: skip


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _files(folder: Path, stdin: str) -> list[Path]:
    folder.mkdir()
    (folder / "in").write_bytes(stdin.encode())
    return [folder / stream for stream in ("in", "out", "err")]


def _run_all(starts: Sequence[Start], at_most_s: float) -> list[tuple[int, str, str]]:
    processes = [start.start() for start in starts]
    end = time.monotonic() + at_most_s
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
    late = [process for process in processes if process.exitcode is None]
    for process in late:
        process.kill()
    if late:
        raise TimeoutError(f"{starts[0].arguments} took more than {at_most_s:.0f} s")
    read = [[Path(str(file)).read_text(encoding="utf-8") for file in start.streams[1:]] for start in starts]
    return [(process.exitcode or 0, out, err) for process, (out, err) in zip(processes, read, strict=True)]


def _run(
    arguments: Sequence[str],
    cwd: Path,
    streams: Sequence[Path | str | None],
    environment: Mapping[str, str],
    prepare: Callable[[], None] | None,
    program: Callable[[list[str]], int] | None,
) -> None:
    """What `python finetuning_app.py` does, with files for the standard streams."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for number, file in enumerate(streams):
        if file is not None:
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT if number else os.O_RDONLY), number)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if streams[number] is None:  # after the files were opened: the first of them would get its number
            os.close(number)
            setattr(sys, name, None)
    if streams[0] is not None:  # a forked process has none; the others write to what was put in place
        sys.stdin = os.fdopen(0, closefd=False)
    from finetuning_app import main

    if prepare is not None:
        prepare()
    sys.argv = ["finetuning_app.py", *arguments]
    try:
        code = (main if program is None else program)(list(arguments))
    except SystemExit as ended:  # of argparse
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            if stream is not None:
                stream.flush()
    os._exit(code)
