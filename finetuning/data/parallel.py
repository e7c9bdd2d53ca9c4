"""Record batches made by forked processes, one a core, in order."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from exceptions import ResourceError
from finetuning.environment import with_variable

if TYPE_CHECKING:
    from multiprocessing.context import ForkProcess

    import pyarrow as pa

    Make = Callable[[int], pa.RecordBatch]

_SECONDS_ASLEEP = 0.2
_FAILED = b""
_PARALLELISM = "TOKENIZERS_PARALLELISM"
_STOPS = (signal.SIGINT, signal.SIGTERM)


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def can_fork() -> bool:
    """Return whether the system can fork a process that has threads: Linux can, Windows and macOS cannot."""
    return os.uname().sysname == "Linux" if hasattr(os, "uname") else False


def in_processes(make: Make, starts: Sequence[int], count: int) -> Generator[pa.RecordBatch]:
    """Call `make` for each start in forked processes; process i takes every count-th start from the i-th.

    A process waits when its pipe is full, so none runs far ahead. If a call fails in a process, it is repeated in this
    one, so that the error is raised unchanged. Close the generator to end the processes.

    Args:
        make: Makes the batch that begins at a start.
        starts: The arguments of the calls.
        count: Number of processes.

    Yields:
        The batches in the order of `starts`.

    Raises:
        ResourceError: A process was killed.
    """
    import pyarrow as pa

    workers: list[ForkProcess] = []
    pipes: list[Connection] = []
    try:
        with _ready_to_fork():
            for number in range(count):
                pipe, sender = multiprocessing.Pipe(duplex=False)
                pipes.append(pipe)
                workers.append(
                    multiprocessing.get_context("fork").Process(
                        target=_work, args=(make, starts[number::count], sender, tuple(pipes)), daemon=True
                    )
                )
                workers[-1].start()
                sender.close()
        for position, start in enumerate(starts):
            content = _received(pipes[position % count], workers[position % count])
            yield pa.ipc.open_stream(content).read_next_batch() if content != _FAILED else make(start)
    finally:
        with _signals_held():
            for worker in workers:
                if worker.pid is not None:
                    worker.kill()  # it holds nothing that would be lost
                    worker.join()
            for pipe in pipes:
                pipe.close()


def _work(make: Make, starts: Sequence[int], sender: Connection, readers: Sequence[Connection]) -> None:
    """Run a worker process. It ignores Ctrl+C, which reaches the whole group: the parent ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for reader in readers:  # with a copy open here, a pipe would not break when its reader is gone
        reader.close()
    for start in starts:
        try:
            content = _as_bytes(make(start))
        except Exception:
            content = _FAILED
        try:
            sender.send_bytes(content)
        except BrokenPipeError:
            return


def _as_bytes(batch: pa.RecordBatch) -> Any:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return sink.getvalue()


def _received(pipe: Connection, worker: ForkProcess) -> bytes:
    try:
        while not pipe.poll(_SECONDS_ASLEEP):  # a signal that another thread received does not wake this one
            continue
        return pipe.recv_bytes()
    except (EOFError, OSError):
        worker.join()
        raise ResourceError(
            "토큰화하던 프로세스가 비정상 종료되었습니다. 메모리가 부족하면 운영체제가 프로세스를 끝냅니다.",
            where=f"종료 코드 {worker.exitcode}",
            remedy="다른 프로그램을 닫아 메모리를 확보하고 다시 실행하세요.",
        ) from None


@contextmanager
def _ready_to_fork() -> Iterator[None]:
    """Turn the tokenizer's threads off: a forked process does not have them, and would wait for them."""
    with with_variable(_PARALLELISM, "false"), _signals_held():
        yield


@contextmanager
def _signals_held() -> Iterator[None]:
    """Delay Ctrl+C and SIGTERM to the end of the block, so that workers are started and ended whole.

    Handlers do it, since a mask holds for one thread: another thread would take the signal, and Python would run the
    main thread's handler at once.
    """
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in _STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
