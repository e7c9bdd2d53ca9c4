"""Names on the disk that belong to checkpoints, and the run that a checkpoint belongs to. Nothing here needs torch."""

from __future__ import annotations

import re
from pathlib import Path

from exceptions import ModelError

CHECKPOINTS, LATEST = "checkpoints", "checkpoint-latest"
_STEP = re.compile(r"step-(\d{8}|[1-9]\d{8,})")
_HALF_MADE = re.compile(rf"\.{_STEP.pattern}\.(partial|replaced)-\d+")
_LONGEST_POINTER = 4096


def folder_name(step: int) -> str:
    """Return the name of the checkpoint of a step."""
    return f"step-{step:08d}"


def step_of(path: Path) -> int | None:
    """Return the step that a folder's name says, or None for a name that checkpoints never have."""
    found = _STEP.fullmatch(path.name)
    return int(found[1]) if found else None


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest first. Copies under other names, as `step-best`, are the user's."""
    paths = [folder / name for name in entries(folder)]
    return sorted(
        (path for path in paths if step_of(path) is not None and path.is_dir()), key=lambda path: step_of(path) or 0
    )


def half_made_in(folder: Path) -> list[Path]:
    """Return the folders of checkpoints that are being written, or whose writing was cut off."""
    return [folder / name for name in entries(folder) if _HALF_MADE.fullmatch(name)]


def points_to_a_checkpoint(path: Path) -> bool:
    """Return whether a path is a link or pointer file that this program made; a broken one counts too."""
    try:
        if path.is_symlink():
            named = path.readlink()
        else:
            lines = path.read_bytes()[:_LONGEST_POINTER].decode().splitlines()
            named = Path(lines[0]) if len(lines) == 1 else Path()
    except (OSError, ValueError):
        return False
    return step_of(named) is not None and named.parent.name == CHECKPOINTS


def follow(path: Path) -> Path:
    """Resolve a path to a checkpoint's folder: the folder itself, a link's target, or what a pointer file names.

    Args:
        path: What the user named.

    Returns:
        The folder.

    Raises:
        ModelError: There is no checkpoint.
    """
    path = path.expanduser()
    if path.is_file():
        if not points_to_a_checkpoint(path):
            raise ModelError(
                f"체크포인트 폴더가 아니라 파일입니다: {path}",
                where="--checkpoint_path",
                remedy=f"체크포인트의 폴더를 쓰세요. 예: {path.parent}",
            )
        path = path.parent / path.read_text(encoding="utf-8", errors="replace").strip()[:_LONGEST_POINTER]
    if not path.is_dir():
        raise ModelError(
            f"체크포인트가 없습니다: {path}",
            where="--checkpoint_path",
            remedy="체크포인트는 <output_dir>/checkpoints 아래에 있습니다. --resume만 쓰면 최신 것을 찾습니다.",
        )
    return path.resolve()


def with_own_name(path: Path) -> Path:
    """Return a path that ends in the folder's own name; `.` and `..` do not."""
    return path if path.name not in ("", "..") else path.resolve()


def entries(folder: Path) -> list[str]:
    """Return the names in a folder; none where it does not exist or cannot be read."""
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:
        return []
