"""What the C library's heap takes for a step's tensors on a CPU, found by allocating them again and not touching them.

glibc's aligned allocation (posix_memalign, which torch calls for every tensor) wants a free block a little larger
than what is asked for, so a freed tensor's place does not do for the next one of its size while its neighbours live:
beside the bytes alive, the heap keeps holes that add up to hundreds of megabytes. How many depends on the order of
all sizes, and on the small objects that torch makes along with a tensor, which fill the splinters that alignment
leaves and so keep freed blocks from growing together. So the order itself is asked, small objects included: more of
them where autograd records an operator. SmolLM2-135M with LoRA, 2,201 MiB alive at once, took 3,480, and this says
2,890; with gradient checkpointing, too, 273 alive took 790, and this says 1,000. Memory that is not written to costs
nothing but address space.

This file is also the program that does it, in a process of its own with an empty heap.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from array import array
from collections.abc import Sequence
from typing import NamedTuple

_ALIGNMENT = 64  # bytes, torch's on a CPU
_STEPS = 3  # the second step meets the first one's holes; after the third the heap hardly grows
_OBJECTS = (112, 208)  # bytes of a tensor's own objects: storage, tensor
_RECORDED = (48, 64, *_OBJECTS)  # with what autograd keeps of it
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # malloc.h: from which size blocks are mapped, how much free end is kept
_AT_MOST_S = 60
_LOOKED_AT = 2**16  # bytes of an allocation that may have made the heap grow


class Event(NamedTuple):
    """A tensor that is made, or dropped where size is -1; is_recorded: whether autograd keeps track of it."""

    number: int
    size: int
    is_recorded: bool


class _HeapInfo(ctypes.Structure):
    """mallinfo2 of glibc 2.33 and later: arena, bytes of the heap; hblkhd, bytes mapped beside it."""

    _names_ = (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
    )  # fmt: skip
    _fields_ = [(name, ctypes.c_size_t) for name in _names_]


def heap_peak(events: Sequence[Event]) -> int | None:
    """The most bytes that the heap has over some steps of the same events; None where the C library cannot tell."""
    if sys.platform != "linux":
        return None
    numbers = array("q", [number for event in events for number in event])
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", __file__], input=numbers.tobytes(), stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, timeout=_AT_MOST_S,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return int(done.stdout) if done.returncode == 0 else None


def _replay(numbers: array[int]) -> int:
    library = ctypes.CDLL(None)
    allocate, small, free, info = library.memalign, library.malloc, library.free, library.mallinfo2
    allocate.restype, allocate.argtypes = ctypes.c_void_p, [ctypes.c_size_t, ctypes.c_size_t]
    small.restype, small.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    free.restype, free.argtypes = None, [ctypes.c_void_p]
    info.restype = _HeapInfo
    library.mallopt(_MMAP_THRESHOLD, 2**25)  # what it has grown to by then, which is its most
    library.mallopt(_TRIM_THRESHOLD, 2**30)  # some small object always lives near the end of a real heap, and keeps it
    before = info()
    most = 0
    for _ in range(_STEPS):
        places: dict[int, list[int | None]] = {}
        for at in range(0, len(numbers), 3):
            number, size, is_recorded = numbers[at : at + 3]
            if size < 0:
                for place in places.pop(number):
                    free(place)
                continue
            objects = [small(beside) for beside in (_RECORDED if is_recorded else _OBJECTS)]
            places[number] = [allocate(_ALIGNMENT, max(1, size)), *objects]
            if size >= _LOOKED_AT:
                now = info()
                most = max(most, now.arena - before.arena + now.hblkhd - before.hblkhd)
        for place in (place for kept in places.values() for place in kept):
            free(place)
    return most


if __name__ == "__main__":
    given = array("q")
    given.frombytes(sys.stdin.buffer.read())
    print(_replay(given))
