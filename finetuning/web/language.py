"""The two languages of the page: every text stands in both where it is used."""

from __future__ import annotations

from collections.abc import Callable

Say = Callable[[str, str], str]  # (Korean, English) → the one that is shown


def korean(ko: str, en: str) -> str:
    """Return the Korean text."""
    return ko


def english(ko: str, en: str) -> str:
    """Return the English text."""
    return en
