"""Rows → examples on the disk: encoded in batches on all cores, written in the rows' order to one Arrow file."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exceptions import ResourceError

if TYPE_CHECKING:
    from multiprocessing.context import ForkProcess

    import pyarrow as pa
    from datasets import Dataset

    Make = Callable[[int], pa.RecordBatch]

_ROWS_AT_A_TIME = 1000
_BYTES_A_BATCH = 1 << 22
_ROWS_WORTH_PROCESSES = 5000  # of fewer the tokenizer's own threads are through before processes have begun
_MOST_PROCESSES = 16  # more than one reader takes examples from
_SECONDS_ASLEEP = 0.2
_FAILED = b""
_PARALLELISM = "TOKENIZERS_PARALLELISM"
_STOPS = (signal.SIGINT, signal.SIGTERM)


def write_examples(
    table: Dataset, encode: Callable[[Mapping[str, Sequence[Any]]], Mapping[str, Sequence[Any]]], path: Path
) -> None:
    """Writes what `encode` makes of the columns of each batch of rows, as an Arrow stream. Memory stays flat.

    Rows in many are encoded by processes forked for it, one a core, for a task's own part of the work is Python. Where
    a system cannot fork safely (Windows, macOS), the tokenizer's threads alone share the work. Raises whatever `encode`
    raises, and ResourceError where a process is killed.
    """

    def make(start: int) -> pa.RecordBatch:
        return _as_batch(encode(table[start : start + _ROWS_AT_A_TIME]))

    starts = range(0, len(table), _ROWS_AT_A_TIME)
    processes = min(_cores(), len(starts), _MOST_PROCESSES)
    if processes > 1 and len(table) >= _ROWS_WORTH_PROCESSES and _can_fork():
        with closing(_by_processes(make, starts, processes)) as batches:  # whatever ends the writing ends them
            write_batches(batches, path)
    else:
        write_batches(map(make, starts), path)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _can_fork() -> bool:
    return os.uname().sysname == "Linux" if hasattr(os, "uname") else False


# --- Arrow ---


def _as_batch(columns: Mapping[str, Sequence[Any]]) -> pa.RecordBatch:
    """Columns of Python values; lists of integers, which are tokens and places in a text, take 32 bits each."""
    import pyarrow as pa

    arrays = {name: pa.array(values) for name, values in columns.items()}
    for name, array in arrays.items():
        if pa.types.is_list(array.type) and pa.types.is_integer(array.type.value_type):
            arrays[name] = array.cast(pa.list_(pa.int32()))
    return pa.RecordBatch.from_pydict(arrays)


def write_batches(batches: Iterable[pa.RecordBatch], path: Path) -> None:
    """Writes one batch or more as an Arrow stream."""
    import pyarrow as pa

    tables = _joined(batches)
    first = next(tables)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, first.schema) as stream:
        for table in itertools.chain([first], tables):
            stream.write_table(table)


def _joined(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The batches joined to larger ones, as who reads them holds kilobytes for each; the first show the schema."""
    import pyarrow as pa

    schema, held, size = None, list[pa.RecordBatch](), 0
    for batch in batches:
        held.append(batch)
        size += batch.nbytes
        if size < _BYTES_A_BATCH:
            continue
        schema = schema or _schema_of(held)
        if _lacks_a_type(schema):  # every list of a column is empty so far: a later batch shows what they are lists of
            schema = None
            continue
        yield pa.concat_tables([pa.Table.from_batches([part]).cast(schema) for part in held]).combine_chunks()
        held, size = [], 0
    if held:
        schema = schema or _schema_of(held)
        yield pa.concat_tables([pa.Table.from_batches([part]).cast(schema) for part in held]).combine_chunks()


def _schema_of(batches: Sequence[pa.RecordBatch]) -> pa.Schema:
    import pyarrow as pa

    return pa.unify_schemas([batch.schema for batch in batches], promote_options="permissive")


def _lacks_a_type(schema: pa.Schema) -> bool:
    import pyarrow as pa

    return any(pa.types.is_null(getattr(field.type, "value_type", field.type)) for field in schema)


# --- processes ---


def _by_processes(make: Make, starts: Sequence[int], count: int) -> Generator[pa.RecordBatch]:
    """What `make` makes of each start, in their order; every count-th start is one forked process's.

    A process waits once its pipe is full, so none runs far ahead. What fails in a process is made again here, where its
    error is raised as it is.
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
    """A process's life. Ctrl+C reaches it too, but ending is the parent's to say, and the parent's end is its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for reader in readers:  # an open copy would keep a pipe whole whose reader is gone
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
        while not pipe.poll(_SECONDS_ASLEEP):  # a signal that another thread took does not wake this one
            continue
        return pipe.recv_bytes()
    except (EOFError, OSError):
        worker.join()
        raise ResourceError(
            "토큰화하던 프로세스가 갑자기 끝났습니다. 메모리가 부족하면 운영체제가 프로세스를 끝냅니다.",
            where=f"종료 코드 {worker.exitcode}",
            remedy="다른 프로그램을 닫아 메모리를 비우고 다시 실행하세요.",
        ) from None


@contextmanager
def _ready_to_fork() -> Iterator[None]:
    """Tells the tokenizer to go without threads: they do not live on in a forked process, which would wait for them."""
    known = os.environ.get(_PARALLELISM)
    os.environ[_PARALLELISM] = "false"
    try:
        with _signals_held():
            yield
    finally:
        if known is None:
            del os.environ[_PARALLELISM]
        else:
            os.environ[_PARALLELISM] = known


@contextmanager
def _signals_held() -> Iterator[None]:
    """Ctrl+C and SIGTERM wait: until a new process has its own way with them, until the last of all has been ended.

    By handlers, not by the thread's mask: another thread would take the signal, and the main one its handler at once.
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
