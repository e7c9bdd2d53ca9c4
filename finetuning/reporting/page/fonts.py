"""A font with Hangul for pictures, from a package that pip installs."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

PACKAGE = "koreanize_matplotlib"  # never imported: its import changes the fonts of every figure of the process


def korean_font() -> Path:
    """Find the file of NanumGothic.

    Returns:
        Its path.

    Raises:
        ModuleNotFoundError: The package with the font is not installed.
    """
    spec = find_spec(PACKAGE)
    folders = [] if spec is None else spec.submodule_search_locations or []
    for folder in folders:
        for path in Path(folder).rglob("NanumGothic.ttf"):
            return path
    raise ModuleNotFoundError(f"No module named '{PACKAGE}'", name=PACKAGE)
