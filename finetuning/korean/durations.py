"""Durations as they are said in Korean."""

from __future__ import annotations

_UNITS = ((86_400, "일", 3600, "시간"), (3600, "시간", 60, "분"), (60, "분", 1, "초"))


def duration(seconds: float) -> str:
    """Return a duration in its two largest units: `45초`, `3분 20초`, `2시간 5분`, `1일 3시간`."""
    whole = round(seconds)
    for unit, name, below, name_below in _UNITS:
        if whole >= unit:
            rest = whole % unit // below
            return f"{whole // unit:,}{name}" + (f" {rest}{name_below}" if rest else "")
    return f"{whole}초"
