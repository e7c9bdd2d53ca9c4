"""Memory in use and memory limits, read from torch, psutil, the container's cgroup and the shell's ulimit."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Bytes of address space that thread heaps and libraries reserve later in a run; 120 to 250 MiB were measured.
_RESERVED_LATER = 2**28
# Bytes of a GPU that kernels of cuBLAS, cuDNN and attention take when they are first used, which the allocator does not
# count. An estimate, not measured.
_KERNELS_LOADED_LATER = 2**28


@dataclass(frozen=True)
class Cgroup:
    """The files of a memory cgroup, in version 2's names unless others are given.

    Attributes:
        folder: The folder that holds the files.
        limit: File with the limit in bytes, or "max".
        used: File with the bytes in use, file cache included.
        cache: Key in `memory.stat` for the file cache that the kernel may drop at once.
    """

    folder: Path
    limit: str = "memory.max"
    used: str = "memory.current"
    cache: str = "inactive_file"

    def limit_bytes(self) -> int | None:
        """Return the limit, or None where there is none."""
        try:
            return int((self.folder / self.limit).read_text())
        except (OSError, ValueError):  # no such file, or "max"
            return None

    def available_bytes(self) -> int | None:
        """Return the bytes left under the limit, droppable file cache included, or None without a limit."""
        limit = self.limit_bytes()
        if limit is None:
            return None
        try:
            used = int((self.folder / self.used).read_text())
            counts = dict(line.split() for line in (self.folder / "memory.stat").read_text().splitlines())
            return limit - used + int(counts[self.cache])
        except (OSError, ValueError, KeyError):
            return None


CGROUPS = (
    Cgroup(Path("/sys/fs/cgroup")),
    Cgroup(Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def used_bytes(device: torch.device) -> int:
    """Return the bytes in use now: allocated on a GPU, resident in this process on a CPU."""
    import psutil
    import torch

    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return int(psutil.Process().memory_info().rss)


def peak_bytes(device: torch.device) -> int:
    """Return the most bytes that were in use at once, counted as by used_bytes; on Windows' CPUs those in use now."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return used_bytes(device)
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def gpu_limit_bytes(device: torch.device, share: float) -> int:
    """Return the bytes of a GPU that this process may use for tensors.

    Other programs and the context of CUDA, which no allocator counts, take a part of the card: the share is of what
    they leave. Kernels that are loaded later take some of it, too.

    Args:
        device: The GPU.
        share: Share of the memory that is free, from 0 to 1.

    Returns:
        The share of the free memory and of what this process holds already.
    """
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    return int(share * max(0, free + torch.cuda.memory_reserved(device) - _KERNELS_LOADED_LATER))


def host_limit_bytes() -> int:
    """Return the least of the machine's memory, its container's limit and what `ulimit -v` allows this process."""
    import psutil

    containers = (group.limit_bytes() for group in CGROUPS)
    return min(int(psutil.virtual_memory().total), _address_space_bytes(), *_known(containers))


def available_bytes() -> int:
    """Return the bytes of main memory that this process can still get, from the machine or within its container."""
    import psutil

    containers = (group.available_bytes() for group in CGROUPS)
    return min(int(psutil.virtual_memory().available), *_known(containers), sys.maxsize)


def room_to_copy() -> int:
    """Return the bytes that a copy of weights, which only saves time, may take: half of what the host has left."""
    return available_bytes() // 2


def _known(values: Iterator[int | None]) -> Iterator[int]:
    return (value for value in values if value is not None)


def _address_space_bytes() -> int:
    """Return the bytes that may be resident under `ulimit -v`, which also counts pages that are mapped and unused."""
    import psutil

    try:
        import resource
    except ImportError:  # Windows
        return sys.maxsize
    addresses, _ = resource.getrlimit(resource.RLIMIT_AS)
    if addresses == resource.RLIM_INFINITY:
        return sys.maxsize
    now = psutil.Process().memory_info()
    return int(addresses - (now.vms - now.rss) - _RESERVED_LATER)
