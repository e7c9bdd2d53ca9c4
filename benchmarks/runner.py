"""What every benchmark shares: runs in processes of their own, facts about the machine, tables, and results on disk.

`python -m benchmarks.runner MODULE FUNCTION JSON` is such a process: it calls a function of a benchmark with keyword
arguments and prints what it returns as JSON in its last line.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
_CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
_WHEN_PARENT_ENDS = 1  # PR_SET_PDEATHSIG of Linux
_PACKAGES = (
    "torch", "transformers", "accelerate", "peft", "datasets", "trl", "bitsandbytes", "sentence-transformers",
)  # fmt: skip


@dataclass
class Table:
    """Rows of measured values. A cell is a number, a text, a list of numbers (one a seed or a run), or None."""

    columns: tuple[str, ...]
    rows: list[dict[str, Any]] = field(default_factory=list)
    title: str = ""

    def markdown(self) -> str:
        lines = [f"| {' | '.join(self.columns)} |", "|" + "---|" * len(self.columns)]
        lines += [f"| {' | '.join(_as_text(row.get(column)) for column in self.columns)} |" for row in self.rows]
        return "\n".join([f"{self.title}\n", *lines] if self.title else lines)


def _as_text(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, list):
        return ", ".join(map(_as_text, cell))
    return f"{cell:.4g}" if isinstance(cell, float) else f"{cell:,}" if isinstance(cell, int) else str(cell)


def say(text: str) -> None:
    """Reports progress on standard error, where it stays out of the tables."""
    print(text, file=sys.stderr, flush=True)


# --- processes ---


def program(command: str, *flags: object, stdin: str = "") -> str:
    """Run this program's own command line in a process of its own.

    Args:
        command: The command word, such as "train".
        flags: The words after it.
        stdin: What the command reads.

    Returns:
        What the command printed. Its log is shown only where it fails, which ends the benchmark.
    """
    # the report is not what is measured
    plain = ("--set", "logging.report=false") if command in ("train", "evaluate") else ()
    return _run([sys.executable, "finetuning_app.py", command, *plain, *map(str, flags)], stdin)


def call_apart(function: str, **arguments: Any) -> Any:
    """Call a benchmark's function in a process of its own.

    Args:
        function: "module:function" in this package.
        arguments: Keyword arguments that JSON can hold; paths are passed as text.

    Returns:
        What the function returned, through JSON.
    """
    words = [sys.executable, "-m", "benchmarks.runner", *function.split(":"), json.dumps(arguments, default=str)]
    return json.loads(_run(words).splitlines()[-1])


def ends_with_this() -> dict[str, Any]:
    """Options of subprocess with which Linux ends a process as soon as this one has ended, killed or not."""
    if sys.platform != "linux":
        return {}
    libc, mine = ctypes.CDLL(None), os.getpid()

    def tie() -> None:
        libc.prctl(_WHEN_PARENT_ENDS, signal.SIGKILL)
        if os.getppid() != mine:  # it ended before
            os._exit(1)

    return {"preexec_fn": tie}


def _run(words: list[str], stdin: str = "") -> str:
    done = subprocess.run(
        words, cwd=ROOT, input=stdin, capture_output=True, text=True, encoding="utf-8", **ends_with_this()
    )
    if done.returncode:
        sys.exit(f"{' '.join(words)}\nended with code {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


def flags_of(flags: Mapping[str, object], settings: Iterable[str] = ()) -> list[str]:
    """Words of a command line: each flag with its value, and `--set` before each setting."""
    words = [str(word) for pair in flags.items() for word in pair]
    return [*words, *(word for setting in settings for word in ("--set", setting))]


def summary_of(output_dir: Path) -> dict[str, Any]:
    """What a run left in summary.json."""
    return dict(json.loads((output_dir / "summary.json").read_text(encoding="utf-8")))


# --- data ---


def copy_rows(source: Path, target: Path, rows: int, skipped: int = 0) -> None:
    """Copy a text file's header and some of its rows, those after `skipped`."""
    with source.open(encoding="utf-8") as lines:
        header = next(lines)
        target.write_text(header + "".join(islice(lines, skipped, skipped + rows)), encoding="utf-8")


def make_tiny_nsmc(folder: Path) -> Path:
    """Write the bundled reviews as files of NSMC's names and shape, for runs that measure nothing."""
    import csv

    folder.mkdir()
    for name, split in (("ratings_train", "train"), ("ratings_test", "test")):
        with (ROOT / "examples" / "reviews" / f"{split}.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        told = [row for row in rows if row["label"] != "중립"]
        lines = [f"{n}\t{row['text']}\t{int(row['label'] == '긍정')}\n" for n, row in enumerate(told)]
        (folder / f"{name}.txt").write_text("id\tdocument\tlabel\n" + "".join(lines), encoding="utf-8")
    return folder


# --- results ---


def machine() -> dict[str, Any]:
    """Facts that a figure depends on: processor, memory, accelerator, threads, and versions of what computes."""
    import psutil
    import torch

    facts: dict[str, Any] = {
        "system": platform.platform(), "cpu": platform.processor() or platform.machine(), "cpu_flags": [],
        "cores": len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else os.cpu_count(),
        "threads": torch.get_num_threads(), "memory_bytes": psutil.virtual_memory().total,
        "gpus": [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())],
        "python": platform.python_version(),
    }  # fmt: skip
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        found = dict(line.split(":", 1) for line in cpuinfo.read_text().split("\n\n")[0].splitlines() if ":" in line)
        known = {name.strip(): value.strip() for name, value in found.items()}
        facts["cpu"] = known.get("model name", facts["cpu"])
        facts["cpu_flags"] = [flag for flag in _CPU_FLAGS if flag in known.get("flags", "").split()]
    for package in _PACKAGES:
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return facts


def commit() -> str | None:
    """The commit that is measured, marked where files differ from it; None outside a clone."""
    found = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return found.stdout.strip() or None


def save(name: str, arguments: Mapping[str, Any], tables: list[Table]) -> Path:
    """Write a result to benchmarks/results/NAME-DATE.json, and a copy into the folder that OUT names, if any."""
    now = datetime.now(UTC)
    result = {
        "benchmark": name, "date": now.isoformat(timespec="seconds"), "commit": commit(), "machine": machine(),
        "arguments": {key: _without_folders(value) for key, value in arguments.items() if value is not None},
        "tables": [asdict(table) for table in tables],
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{now:%Y-%m-%d}.json"
    path.write_text(json.dumps(result, ensure_ascii=False, indent=1, default=str) + "\n", encoding="utf-8")
    if os.environ.get("OUT"):  # all that a machine on loan leaves
        shutil.copy(path, os.environ["OUT"])
    return path


def _without_folders(value: Any) -> Any:
    """Return a path's last name alone: a result is published, and where its files lay is nobody's business."""
    return value.name if isinstance(value, Path) else value


def newest(name: str) -> dict[str, Any] | None:
    """The newest result of a name, by the date in the file's name."""
    found = sorted(RESULTS.glob(f"{name}-[0-9][0-9][0-9][0-9]-*.json"))
    return json.loads(found[-1].read_text(encoding="utf-8")) if found else None


def _main() -> None:
    module, function, arguments = sys.argv[1:]
    returned = getattr(importlib.import_module(f"benchmarks.{module}"), function)(**json.loads(arguments))
    print("\n" + json.dumps(returned))


if __name__ == "__main__":
    _main()
