"""The folder of an export: written beside what is there, and put in its place once all of it is on the disk."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from exceptions import ResourceError
from finetuning.files import discard, give_usual_mode, move, sync_file, sync_folder, write_json, writing

EXPORTED = "export.json"  # what an export wrote: from which model, and which files, so that it may be written anew
_PARTIAL = ".export.partial"


@contextmanager
def staged(folder: Path, record: Mapping[str, Any]) -> Iterator[Path]:
    """Give a folder to write an export into, and move all of it into place afterwards.

    Files of an earlier export that are not written again are removed, and files of the user's stay. After an error,
    such as a full disk, the folder is as it was.

    Args:
        folder: The folder of the export.
        record: What export.json says beside the names of the files.

    Yields:
        An empty folder on the same disk.

    Raises:
        ResourceError: The disk is full or cannot be written.
    """
    was_there = folder.exists()
    partial = folder / _PARTIAL
    discard(partial)
    try:
        with writing("내보낸 모델을 저장하지 못했습니다", folder, partial=partial):
            partial.mkdir(parents=True)
            yield partial
            files = sorted(str(path.relative_to(partial)) for path in partial.rglob("*") if path.is_file())
            write_json(partial / EXPORTED, {**record, "files": files})
            _put_in_place(partial, folder, [EXPORTED, *files])
    except BaseException as error:
        if isinstance(error, ResourceError):  # the folder that the user named, and not the one that is gone
            error.where = error.where.replace(str(partial), str(folder))
        if not was_there:
            with suppress(OSError):  # it stays if somebody wrote into it
                folder.rmdir()
        raise


def _put_in_place(partial: Path, folder: Path, files: list[str]) -> None:
    give_usual_mode(partial / file for file in files)
    for file in files:  # all of it is on the disk before any of it takes the place of the export before
        sync_file(partial / file)
    earlier = record_of(folder).get("files")
    for file in files:  # export.json first: whatever stops here is known as an export afterwards
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        move(partial / file, folder / file)
    for file in earlier if isinstance(earlier, list) else []:
        if isinstance(file, str) and Path(file).name == file and file not in files:
            discard(folder / file)
    discard(partial)
    sync_folder(folder)


def record_of(folder: Path) -> dict[str, Any]:
    """Return what export.json in a folder says; empty where there is none that can be read."""
    try:
        found = json.loads((folder / EXPORTED).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def sizes_in(folder: Path) -> dict[str, int]:
    """Return the names of the files that an export wrote → their bytes, the largest first."""
    names = [*record_of(folder).get("files", []), EXPORTED]
    sizes = {name: (folder / name).stat().st_size for name in names}
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def size_text(count: int) -> str:
    """Return bytes as people read them: `1.2 GB`, `340.0 MB`, `2 KB`."""
    if count >= 10**9:
        return f"{count / 10**9:.1f} GB"
    return f"{count / 10**6:.1f} MB" if count >= 10**6 else f"{max(1, round(count / 1000))} KB"
