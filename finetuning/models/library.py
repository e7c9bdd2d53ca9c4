"""The classes of transformers that a task's model is loaded with."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def auto_class_of(name: str) -> Any:
    """Return a class of transformers such as `AutoModel`, by its name."""
    import transformers

    if "transformers.modeling_utils" not in sys.modules:
        _import_losses()
    return getattr(transformers, name)


def _import_losses() -> None:
    """Import the losses that models come with, and those for objects in images without scipy's optimizers.

    No task here reads images, and scipy's optimizers take as long as all other modules of a model: half a second.
    """
    import transformers

    with _replaced(transformers.utils, "is_scipy_available", lambda: False):
        import transformers.loss.loss_utils


@contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """Let a module have another value by this name inside the block."""
    own = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, own)
