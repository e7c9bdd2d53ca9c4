"""The import of Gradio without what takes more than half of its time: stubs for editors beside each component."""

from __future__ import annotations

import importlib
import inspect
from typing import Any


def import_gradio() -> None:
    """Import Gradio. It writes no stubs for a class that has no source file, so its own classes seem to have none."""
    source_of = inspect.getfile

    def source_but_of_components(of: Any) -> str:
        if isinstance(of, type) and of.__module__.startswith("gradio."):
            raise OSError(f"no stubs are wanted for {of.__name__}")
        return source_of(of)

    inspect.getfile = source_but_of_components  # type: ignore[assignment]
    try:
        importlib.import_module("gradio")
    finally:
        inspect.getfile = source_of
