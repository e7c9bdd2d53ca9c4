"""The classes of transformers that a task's model is loaded with."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finetuning.imports import imports_not_collected


def auto_class_of(name: str) -> Any:
    """Return a class of transformers such as `AutoModel`, by its name."""
    import transformers

    if "transformers.modeling_utils" not in sys.modules:
        with imports_not_collected():  # torch's compiler and its distributed part come with them
            _import_losses()
            import transformers.modeling_layers
    return getattr(transformers, name)


def import_models() -> None:
    """Import the package of all models by what `import transformers` has read of its files.

    Each of the two reads all of them, some thousand, to know which file has which class: a quarter of a second.
    """
    import transformers
    from transformers.utils import import_utils

    reader = "create_import_structure_from_path"
    if "transformers.models" in sys.modules or not hasattr(import_utils, reader):  # transformers promises no such name
        return
    read, folder = getattr(import_utils, reader), Path(transformers.__file__).parent / "models"
    known = read(folder)
    with _replaced(import_utils, reader, lambda path: known if Path(path) == folder else read(path)):
        import transformers.models


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
