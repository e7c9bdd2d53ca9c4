"""What the program does while it imports its libraries."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def imports_not_collected() -> Iterator[None]:
    """Keep the garbage collector from searching what the block imports, then and at exit: a second for nothing."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
