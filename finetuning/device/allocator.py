"""Settings and clean-up of the memory allocators: CUDA's, glibc's heap, and oneDNN's kernel cache."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from finetuning.config.schema import Settings

if TYPE_CHECKING:
    import torch

# Sizes from which on glibc maps blocks separately: where memory is short, and else. A larger block, the gradient of a
# vocabulary of 250,000 pieces, say, leaves a hole in the heap that is cut up: the peaks of gemma3-270m and of e5-small
# rose by a tenth and more.
_MAPPED_IF_SHORT, _MAPPED = 2**20, 2**27
_MOST_MAPPED_OF_OLD = 2**25  # the most that glibc took before it took any, and the most that it chooses itself
_KEPT_IF_SHORT, _KEPT = 2**26, 2**31 - 1  # free bytes at the heap's end above which glibc gives them back
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def prepare_allocator(settings: Settings) -> None:
    """Set the environment variables that limit fragmentation over a long run, and those of deterministic kernels.

    Call it before torch is imported.

    CUDA's allocator gets expandable segments. On a CPU, oneDNN caches 1,024 compiled kernels, one for each shape. Where
    every micro-batch has its own shape, resident memory grew by half a megabyte a step; with 128 it stayed flat.
    """
    if settings.memory.optimize_memory_usage:
        if sys.platform == "linux":  # elsewhere CUDA has no such segments, and torch warns
            os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
    if settings.training.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS may choose by what is free


def limit_gpu(device: torch.device, limit: int) -> None:
    """Make torch raise its out-of-memory error where this process would hold more than `limit` bytes of a GPU."""
    import torch

    index = torch.cuda.current_device() if device.index is None else device.index  # torch requires a number
    total = torch.cuda.get_device_properties(index).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total), index)


def trim_heap() -> None:
    """Return the free pages of glibc's heap to the system.

    Freed blocks of up to 32 MB otherwise stay in the heap, and add up. It costs time, as the pages have to be mapped
    again.
    """
    if sys.platform == "linux" and (malloc_trim := _c_function("malloc_trim")) is not None:
        malloc_trim(0)


def map_large_blocks() -> None:
    """Make glibc map each block of 1 MiB or more separately, so that freeing it returns its pages immediately.

    Freed blocks of up to 32 MB otherwise stay in the heap between others, where nothing else can use them. A run
    limited to 2.6 GB of address space ended with not one example fitting, and finished without those blocks. Mapping
    takes time.
    """
    _set_heap(mapped=_MAPPED_IF_SHORT, kept=_KEPT_IF_SHORT)


def keep_freed_blocks() -> None:
    """Make glibc keep freed blocks in its heap for the next step, instead of giving their pages back.

    A step allocates what the step before it has freed. Pages that went back meanwhile are mapped and zeroed anew: of
    BERT-base's step on two cores they were 61,000, and with 6,000 it took a tenth to a seventh less time, for 1% more
    memory at the peak.
    """
    _set_heap(mapped=_MAPPED, kept=_KEPT)


def return_freed_blocks() -> None:
    """Make glibc give freed blocks back as it does by itself, after an earlier run of the process kept them.

    glibc arrives at these sizes in a process that frees blocks of 32 MiB, so that a run pays nothing for them.
    """
    _set_heap(mapped=_MOST_MAPPED_OF_OLD, kept=_KEPT_IF_SHORT)


def _set_heap(mapped: int, kept: int) -> None:
    """Set from which size on glibc maps blocks, and how many free bytes it keeps at the heap's end.

    Some versions refuse to keep blocks of more than 32 MiB in the heap. The second setting ends glibc's own search for
    the first one, so that one is set in any case.
    """
    if sys.platform == "linux" and (mallopt := _c_function("mallopt")) is not None:
        if not mallopt(_M_MMAP_THRESHOLD, mapped):
            mallopt(_M_MMAP_THRESHOLD, min(mapped, _MOST_MAPPED_OF_OLD))
        mallopt(_M_TRIM_THRESHOLD, kept)


def _c_function(name: str) -> Callable[..., int] | None:
    """Return a function of the C library, or None where it has none of that name, as in musl."""
    import ctypes

    return getattr(ctypes.CDLL(None), name, None)
