"""Everything that is open about GPUs, asked in one run: python -m benchmarks gpu --budget 270

Offline, on one GPU, with random weights in real shapes and texts out of the bundled data. Checks are asked in the order
of what their answers decide. What is known of one is a JSON line, on standard output and in gpu.jsonl, as soon as it is
known (a check may have several); the line with "answered" or "failed" ends it. A check that fails, or takes longer than
its share of the time, does not stop the others; one for which too little is left of the budget is skipped, and its line
says so. At the end the answers stand beside what they should be.

gpu.jsonl, gpu.log (what the processes printed) and the result go to the folder that OUT names; without OUT, the first
two go to the present folder. `--only NAME ...` asks the checks that it names, and only so are "qlora" (needs
bitsandbytes, and 40 GB of memory or disk), "peers" (needs trl; liger-kernel adds Liger's kernels) and "flex" asked.
`--tiny` is the same in miniature, also on a CPU, to see that it works.

Other trainers run as torch comes, but for the tuned one, which is spared the plans that cuDNN's attention builds for
each new shape: this program switches that attention off.

A machine without network needs the packages of requirements.txt beside its own torch and transformers. Where there is a
network, `benchmarks/gpu_wheels.sh FOLDER 3.12 base` puts what such machines mostly lack, for Python 3.12, into a folder
to carry there; "base qlora" or "base peers" adds what these two need. On the machine, in the root of this repository:

    python3 -m pip install -q --no-index --no-deps --target /tmp/site FOLDER/*.whl
    PYTHONPATH=/tmp/site python3 -m benchmarks gpu --budget 270

It runs on Python 3.11 and newer with torch 2.11 and transformers 5.17, or newer. Put the result (gpu-DATE.json) into
benchmarks/results, and `python -m benchmarks readme` makes the table of docs/memory-and-speed.md from it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.gpu.plan import Budget, Facts, ask, chosen
from benchmarks.gpu.processes import START_S, NoGpu, Processes
from benchmarks.gpu.registry import CHECKS
from benchmarks.gpu.report import goals, outcomes
from benchmarks.runner import Table

_NO_GPU = """There is no GPU that torch can use here, and these checks are about one.
nvidia-smi shows whether there is a card and a driver; python -c "import torch; print(torch.version.cuda)" prints None
where torch was built for CPUs alone. To try the checks themselves on a CPU: python -m benchmarks gpu --tiny"""
_CLOSING_S = 8  # of the budget: for writing the result
_SHARE, _TINY_SHARE = 2.0, 20.0  # times its cost that a check may take


def add_arguments(parser: argparse.ArgumentParser) -> None:
    lines = [f"  {one.name:<22}{one.cost_s:>4} s  {one.question}" for one in CHECKS]
    parser.epilog = f"checks (a process starts in {START_S} s, the times are an H100's):\n" + "\n".join(lines)
    parser.add_argument("--budget", type=float, default=270, help="seconds for all, the start included (270)")
    parser.add_argument("--only", nargs="+", choices=[check.name for check in CHECKS], metavar="NAME")
    parser.add_argument("--small", action="store_true", help=argparse.SUPPRESS)  # what --tiny stands for


def tiny(folder: Path) -> list[str]:
    return ["--small", "--budget", "3000"]


def run(arguments: argparse.Namespace) -> list[Table]:
    """Ask the checks, and put their answers beside what they should be."""
    if arguments.only:  # its result is kept beside that of all checks
        arguments.work = "-".join(arguments.only)
    budget, home = Budget(arguments.budget - _CLOSING_S), Path(tempfile.mkdtemp(dir=_roomiest()))
    out = Path(os.environ.get("OUT") or (home if arguments.small else "."))
    lines = Lines(out / "gpu.jsonl", budget)
    processes = Processes(home, arguments.small, out / "gpu.log")
    try:
        ask(
            chosen(CHECKS, arguments.only), processes, budget, lines.say,
            patience=_TINY_SHARE if arguments.small else _SHARE,
        )  # fmt: skip
    except NoGpu:
        sys.exit(_NO_GPU)
    finally:
        processes.close()
        shutil.rmtree(home, ignore_errors=True)
    if arguments.small:  # its values are no measurements
        return [outcomes(lines.said)]
    return [goals(lines.said), outcomes(lines.said), Table((), lines.said)]


class Lines:
    """What is known so far, each as a JSON line on standard output and in a file.

    Args:
        path: The file; lines of an earlier run stay in it.
        budget: Tells when a line was known.
    """

    def __init__(self, path: Path, budget: Budget) -> None:
        self.path, self.budget, self.said = path, budget, list[Facts]()

    def say(self, check: str, facts: Facts) -> None:
        """Say what is known of a check."""
        line = {"check": check, "at_s": round(self.budget.spent(), 1), **facts}
        self.said.append(line)
        text = json.dumps(line, ensure_ascii=False, default=str)
        print(text, flush=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


def _roomiest() -> str | None:
    """Return memory's file system where it has room for an 8B model, else None for the usual place."""
    shared = Path("/dev/shm")
    return str(shared) if shared.is_dir() and shutil.disk_usage(shared).free > 40 * 2**30 else None
