"""What glibc's heap does with blocks that a step frees, in a process of its own: its settings are a process's."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
import resource, sys
import torch
from finetuning.config.schema import Settings
from memory_utils import MemoryManager

settings = Settings()
memory = MemoryManager(settings, torch.device("cpu"), 128)
exec(sys.argv[1])

def step():
    blocks = [torch.ones(2**20 * megabytes // 4) for megabytes in map(int, sys.argv[2:])]

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for _ in range(3):
    step()
before = faults()
for _ in range(10):
    step()
print((faults() - before) * resource.getpagesize() / 10 / 2**20)
"""


def megabytes_mapped_anew(prepare: str, sizes: tuple[int, ...] = (2, 30, 3, 31, 30)) -> float:
    """MiB a step whose pages the kernel made anew, of blocks of these sizes that it allocates and frees."""
    words = [sys.executable, "-c", CODE, prepare, *map(str, sizes)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return float(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the heap's settings are glibc's")
def test_a_step_allocates_what_the_last_one_freed_unless_memory_is_short() -> None:
    assert megabytes_mapped_anew("memory.keep_freed_blocks()") < 5
    assert megabytes_mapped_anew("memory.shrink(64, 2); memory.keep_freed_blocks()") > 80
    assert megabytes_mapped_anew("memory.keep_freed_blocks(); memory.shrink(64, 2)") > 80


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the heap's settings are glibc's")
def test_a_run_that_steps_in_the_backward_pass_gives_back_what_an_earlier_run_kept() -> None:
    large = (40, 50)
    earlier = "memory.keep_freed_blocks()"
    later = "settings = Settings.model_validate({'memory': {'optimizer_in_backward': True}})"
    later += "; MemoryManager(settings, memory.device, 128).keep_freed_blocks()"
    assert megabytes_mapped_anew(earlier, large) < 45  # the heap may grow once more in ten steps
    assert megabytes_mapped_anew(f"{earlier}; {later}", large) > 80
