"""Runs of the program in processes that are cheap to start: forked from one that has imported it all."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path


def forkserver() -> ForkServerContext:
    """The server that forks the processes, one for all tests of a process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.preloaded"])
    return context


def run_forked(arguments: Sequence[str], cwd: Path, stdin: str, at_most_s: float) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of a command; TimeoutError where it does not end in time."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").write_bytes(stdin.encode())
        process = forkserver().Process(target=_run, args=(list(arguments), cwd, folder, dict(os.environ)))
        process.start()
        process.join(at_most_s)
        if process.exitcode is None:
            process.kill()
            raise TimeoutError(f"{arguments} took more than {at_most_s:.0f} s")
        out, err = ((folder / stream).read_text(encoding="utf-8") for stream in ("out", "err"))
        return process.exitcode, out, err


def _run(arguments: list[str], cwd: Path, folder: Path, environment: dict[str, str]) -> None:
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
