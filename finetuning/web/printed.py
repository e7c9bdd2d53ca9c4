"""What a command printed, read for the page."""

from __future__ import annotations

_ERROR, _WHERE, _REMEDY = "오류: ", "  위치: ", "  해결: "


def error_in(said: str) -> tuple[str, str, str] | None:
    """Return what happened, where and what to do from the last error that a command printed; None without one."""
    before, mark, rest = said.rpartition(_ERROR)
    if not mark or (before and not before.endswith("\n")):
        return None
    what, *others = rest.rstrip().split("\n")
    where = remedy = ""
    for line in others:
        if line.startswith(_WHERE):
            where = line.removeprefix(_WHERE)
        elif line.startswith(_REMEDY):
            remedy = line.removeprefix(_REMEDY)
        elif remedy:
            remedy += f"\n{line}"
    return what, where, remedy
