"""One run at a time in a folder: a lock that the system drops with the process that holds it, however that ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from exceptions import SettingsError
from finetuning.files import writing

_NAME = ".lock"


@contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Holds a folder, made where it is not there, for as long as the block runs; leaves no empty folder behind.

    Raises SettingsError where another process holds it, ResourceError where it cannot be written.
    """
    from filelock import FileLock, Timeout

    made = [path for path in (folder, *folder.parents) if not path.exists()]
    lock = FileLock(folder / _NAME)
    with writing("output_dir에 쓸 수 없습니다", folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise SettingsError(
                "다른 학습이 지금 이 폴더를 쓰고 있습니다.",
                where=f"model.output_dir: {folder}",
                remedy="그 학습이 끝나기를 기다리거나, --output_dir로 다른 폴더를 고르세요.",
            ) from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows lets nobody remove a file that is open
            (folder / _NAME).unlink()  # before it is released: who comes next must not lock a file that is going
        lock.release()
        for path in made:
            with suppress(OSError):  # what is in use is not empty
                path.rmdir()
