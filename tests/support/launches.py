"""Programs started in groups of processes, as torchrun starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from tests.support.paths import ROOT


def launched(
    processes: int, *words: object, options: Sequence[str] = (), limit_s: float = 280, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a program of the project in a group; the text of its streams is returned."""
    return subprocess.run(
        [*launcher(processes, *options), *map(str, words)],
        cwd=ROOT, capture_output=True, text=True, timeout=limit_s,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


def launcher(processes: int, *options: str) -> list[str]:
    """The words of the launcher, before the program and its flags."""
    return [
        sys.executable,
        "-m",
        "finetuning.device.torchrun",
        "--standalone",
        f"--nproc_per_node={processes}",
        *options,
    ]
