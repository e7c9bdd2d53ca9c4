"""Runs of the program in processes that are cheap to start: forked from one that has imported it all."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path


def forkserver() -> ForkServerContext:
    """The server that forks the processes, one for all tests of a process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.preloaded"])
    return context


def run_forked(arguments: Sequence[str], cwd: Path, stdin: str, at_most_s: float) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of a command; TimeoutError where it does not end in time."""
    (done,) = _run_all([arguments], cwd, [stdin], at_most_s, [{}])
    return done


def run_group(
    processes: int,
    arguments: Sequence[str],
    cwd: Path,
    stdin: str = "",
    at_most_s: float = 200,
    prepare: Callable[[], None] | None = None,
) -> list[tuple[int, str, str]]:
    """What `run_forked` returns, of each process of a group as torchrun starts it; process 0 alone finds the input.

    `prepare`, a function of a module, is called in each process before the command.
    """
    inputs = [stdin, *[""] * (processes - 1)]
    return _run_all([arguments] * processes, cwd, inputs, at_most_s, places_in_group(processes), prepare)


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


def _run_all(
    commands: Sequence[Sequence[str]], cwd: Path, inputs: Sequence[str], at_most_s: float,
    more: Sequence[dict[str, str]], prepare: Callable[[], None] | None = None,
) -> list[tuple[int, str, str]]:  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / str(number) for number in range(len(commands))]
        started = []
        for folder, words, stdin, own in zip(folders, commands, inputs, more, strict=True):
            folder.mkdir()
            (folder / "in").write_bytes(stdin.encode())
            process = forkserver().Process(target=_run, args=(list(words), cwd, folder, {**os.environ, **own}, prepare))
            process.start()
            started.append(process)
        end = time.monotonic() + at_most_s
        for process in started:
            process.join(max(0.0, end - time.monotonic()))
        late = [process for process in started if process.exitcode is None]
        for process in late:
            process.kill()
        if late:
            raise TimeoutError(f"{commands[0]} took more than {at_most_s:.0f} s")
        return [
            (process.exitcode or 0, *((folder / stream).read_text(encoding="utf-8") for stream in ("out", "err")))
            for process, folder in zip(started, folders, strict=True)
        ]


def _run(
    arguments: list[str], cwd: Path, folder: Path, environment: dict[str, str], prepare: Callable[[], None] | None
) -> None:
    """What `python finetuning_app.py` does, with files for the standard streams."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    flags = os.O_WRONLY | os.O_CREAT
    os.dup2(os.open(folder / "in", os.O_RDONLY), 0)
    os.dup2(os.open(folder / "out", flags), 1)
    os.dup2(os.open(folder / "err", flags), 2)
    sys.stdin = os.fdopen(0, closefd=False)  # a forked process has none; the others write to what was put in place
    from finetuning_app import main

    if prepare is not None:
        prepare()
    sys.argv = ["finetuning_app.py", *arguments]
    try:
        code = main(arguments)
    except SystemExit as ended:  # of argparse
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
