"""Memory and time as the rows grow: a table on the disk, through order, windows, partition and batches.

By default 10⁵, 10⁶ and 10⁷ rows; 1 GB of disk for the last. Each number of rows runs in a process of its own. Memory
is what the process holds itself (RssAnon): pages of the memory-mapped table are the system's to take back. Linux alone
tells them apart.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.runner import Table, call_apart

_WINDOW, _BUDGET, _WINDOWS = 64, 16 * 128, 300
_ROWS_AT_A_TIME = 1000
_MIB = 1024**2


def held() -> int:
    """Bytes that this process holds for itself."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")))


def make_tables(rows: int, folder: Path) -> tuple[Path, Path]:
    """Rows with a label and the examples of them, of 4 to 128 tokens each, written as a run writes its cache."""
    import pyarrow as pa

    from finetuning.data.arrow import joined, write_tables

    def batches(has_tokens: bool) -> Iterator[pa.RecordBatch]:
        random = np.random.default_rng(0)
        for start in range(0, rows, _ROWS_AT_A_TIME):
            numbers = np.arange(start + 1, min(start + _ROWS_AT_A_TIME, rows) + 1)
            columns = {"row": pa.array(numbers)}
            if has_tokens:
                offsets = np.zeros(len(numbers) + 1, dtype=np.int32)
                offsets[1:] = np.cumsum(np.minimum(3 + random.geometric(0.05, len(numbers)), 128))
                ids = pa.array(random.integers(0, 30000, offsets[-1], dtype=np.int32))
                columns["input_ids"] = pa.ListArray.from_arrays(offsets, ids)
            else:
                columns["label"] = pa.array((numbers % 2).astype(str))
            yield pa.RecordBatch.from_pydict(columns)

    paths = folder / "rows.arrow", folder / "examples.arrow"
    for path, has_tokens in zip(paths, (False, True), strict=True):
        write_tables(joined(batches(has_tokens)), path)
    return paths


def measure(rows: int, folder: str) -> dict[str, Any]:
    """One row of the table: what opening, holding out and an epoch's order hold, and the time of a window."""
    from datasets import Dataset

    from finetuning.data.examples import Examples, batches_by_length
    from finetuning.data.splits import hold_out_rows
    from finetuning.data.table import coded, counted, list_lengths
    from finetuning.windows.order import epoch_order, is_computed, window_of, windows_per_epoch
    from finetuning.windows.partition import partition

    clean_path, made_path = make_tables(rows, Path(folder))
    before = held()
    since = time.perf_counter()
    table, clean = Dataset.from_file(str(made_path)), Dataset.from_file(str(clean_path))
    examples = Examples(table, list_lengths(table, "input_ids"), clean)
    opened, opening = held() - before, time.perf_counter() - since
    since = time.perf_counter()
    counted(clean, "label")
    hold_out_rows(coded(clean, "label")[0], 0.1, np.random.default_rng(0))
    splitting = time.perf_counter() - since
    since = time.perf_counter()
    order = epoch_order(len(examples), 42, 0)
    ordering, ordered = time.perf_counter() - since, held() - before
    numbers = np.linspace(0, windows_per_epoch(rows, _WINDOW) - 2, _WINDOWS).astype(int)
    seconds = np.empty(_WINDOWS)
    for place, number in enumerate(numbers):
        since = time.perf_counter()
        window = window_of(order, _WINDOW, 0, int(number))
        for cut in partition(window.indices, examples.lengths, _BUDGET):
            examples.fetch(cut)
        seconds[place] = time.perf_counter() - since
    after = held() - before
    since = time.perf_counter()
    batches_by_length(examples.lengths, _BUDGET)
    by_length = time.perf_counter() - since
    return {
        "rows": rows, "open, s": opening, "open, MiB": opened / _MIB, "split, s": splitting, "order, s": ordering,
        "order, MiB": ordered / _MIB, "after 300 windows, MiB": after / _MIB,
        "without order and lengths, MiB": (after - (4 if is_computed(rows) else 12) * rows) / _MIB,
        "window, ms": float(1000 * np.median(seconds)), "evaluation order, s": by_length,
    }  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("rows", nargs="*", type=int, default=[10**5, 10**6, 10**7])
    parser.add_argument("--folder", type=Path, help="where the tables are made (default: the system's temporary one)")


def tiny(folder: Path) -> list[str]:
    return ["20000", "--folder", str(folder)]


def run(arguments: argparse.Namespace) -> list[Table]:
    """Measure each number of rows. Lengths take 4 bytes a row; an order in memory takes 8, a computed one none."""
    found = []
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            found.append(call_apart("scale:measure", rows=rows, folder=folder))
    return [Table(tuple(found[0]), found)]
