"""The disks behind one path: machines that share no folder have one each, and its first process alone writes there."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetuning.files import discard, discard_leftovers, missing_folders, remove_empty, writing

if TYPE_CHECKING:
    from finetuning.device.runtime import Runtime

_MARK = ".seen-"


@dataclass(frozen=True)
class Disks:
    """The disks behind one path.

    Attributes:
        keepers: Rank of the first process that sees each disk; the first is the main process.
        names: The machine of each keeper, as messages name it.
        own: Which of the disks this process sees.
    """

    keepers: tuple[int, ...] = (0,)
    names: tuple[str, ...] = ("",)
    own: int = 0

    @property
    def is_one(self) -> bool:
        """Whether all processes see one disk."""
        return len(self.keepers) == 1

    @property
    def keeper(self) -> int:
        """The process that writes to the disk that this process sees."""
        return self.keepers[self.own]


ONE_DISK = Disks()


def disks_behind(folder: Path, runtime: Runtime) -> Disks:
    """Find out which processes see one folder under a path. Every process has to call it.

    The first process of each machine leaves a mark in the folder as it sees it, and all look for each other's marks.

    Args:
        folder: The folder; where a machine has none, it is made and removed again.
        runtime: The group of processes.

    Returns:
        The disks.

    Raises:
        ResourceError: A machine's folder cannot be written.
    """
    if runtime.processes == 1:
        return ONE_DISK
    token = runtime.from_main(secrets.token_hex(8))
    own = f"{_MARK}{token}-{runtime.process}-{os.getpid()}"  # containers may have processes of equal numbers
    marks = runtime.by_process(own if runtime.is_first_here else None)
    with _marked(folder, marks, runtime):
        seen = [rank for rank, mark in enumerate(marks) if mark is not None and (folder / mark).exists()]
        sees = runtime.by_process(min(seen, default=runtime.process))
    keepers, hosts = tuple(sorted(set(sees))), runtime.by_process(socket.gethostname())
    names = tuple(f"{number}번 노드({hosts[rank]})" for number, rank in enumerate(keepers))
    return Disks(keepers, names, keepers.index(sees[runtime.process]))


@contextmanager
def _marked(folder: Path, marks: Sequence[str | None], runtime: Runtime) -> Iterator[None]:
    made, mark = missing_folders(folder), marks[runtime.process]

    def leave() -> None:
        if mark is not None:
            with writing("output_dir에 쓸 수 없습니다", folder):
                folder.mkdir(parents=True, exist_ok=True)
                # never those of this start: processes of other machines seem to be dead from here
                discard_leftovers(path for path in folder.glob(f"{_MARK}*") if path.name not in marks)
                (folder / mark).touch()

    try:
        runtime.together(leave)
        yield
    finally:
        if mark is not None:
            discard(folder / mark)
            remove_empty(made)
