"""Out-of-memory errors: how to recognise one, and the error that the user reads."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from exceptions import OutOfMemory
from finetuning.device.budget import TokenBudget

# Messages of CUDA, cuDNN, cuBLAS and the CPU allocators when memory runs out, in lower case.
_MESSAGES = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "cudnn_status_alloc_failed",
    "cudnn_status_internal_error_device_allocation_failed",
    "cudnn_status_internal_error_host_allocation_failed",
    "cublas_status_alloc_failed",
    "failed to map segment",  # a shared library that is loaded late
    "can't start new thread",  # there is no memory for its stack
)
# oneDNN gives no reason when it cannot create or run a kernel. For shapes that it supports the reason is memory.
_ONEDNN_MESSAGES = ("could not create a primitive", "could not execute a primitive")

# The types of error that is_out_of_memory may be true for, to name in an `except` clause.
MAY_BE_OUT_OF_MEMORY = (RuntimeError, MemoryError, OSError, ImportError)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the memory of a device or of the machine ran out."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    text = str(error).lower()
    is_known = any(message in text for message in _MESSAGES) or text in _ONEDNN_MESSAGES
    return isinstance(error, RuntimeError | ImportError) and is_known


def out_of_memory(what: str, where: str, remedies: Sequence[str]) -> OutOfMemory:
    """Build the error that ends a command when memory ran out.

    Args:
        what: What did not fit, in Korean.
        where: Where it happened: the memory in use, or the command.
        remedies: What the user can try, the least costly first.

    Returns:
        The error.
    """
    return OutOfMemory(what, where=where, remedy=f"다음을 차례로 시도해 보세요: {' → '.join(remedies)}")


@contextmanager
def reraise_oom(memory: TokenBudget, what: str) -> Iterator[None]:
    """Re-raise an out-of-memory error inside the block as OutOfMemory, with `what` as its message."""
    try:
        yield
    except MAY_BE_OUT_OF_MEMORY as error:
        if not is_out_of_memory(error):
            raise
        raise memory.ran_out(what) from error
