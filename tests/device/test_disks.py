"""Which processes see one disk: machines are threads here, which have one process number, as containers may have."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from finetuning.device.disks import Disks, disks_behind


class Group:
    """What the machines have exchanged."""

    def __init__(self, machines: int) -> None:
        self.values: list[Any] = [None] * machines
        self.barrier = threading.Barrier(machines, timeout=60)


class Machine:
    """The runtime of the only process of a machine; work that all do is done by one after the other."""

    is_first_here = True

    def __init__(self, process: int, group: Group) -> None:
        self.process, self.processes, self.group = process, len(group.values), group

    def by_process(self, mine: Any) -> list[Any]:
        """The values of all machines."""
        self.group.values[self.process] = mine
        self.group.barrier.wait()
        found = list(self.group.values)
        self.group.barrier.wait()
        return found

    def from_main(self, value: Any) -> Any:
        """The value of the first machine."""
        return self.by_process(value)[0]

    def together(self, work: Callable[[], None]) -> None:
        """Do the work in the order of the machines."""
        for turn in range(self.processes):
            if turn == self.process:
                work()
            self.group.barrier.wait()


def seen_by(folders: Sequence[Path]) -> list[Disks]:
    group = Group(len(folders))
    with ThreadPoolExecutor(len(folders)) as pool:
        machines: list[Any] = [Machine(number, group) for number in range(len(folders))]
        return list(pool.map(disks_behind, folders, machines))


@pytest.mark.parametrize("names", ["aa", "ab", "aab", "aba", "abb", "abcb"])
def test_machines_of_one_folder_are_found_and_nothing_is_left_there(names: str, tmp_path: Path) -> None:
    folders = [tmp_path / name / "model" for name in names]
    old = [folder / ".seen-0123456789abcdef-4194305" for folder in set(folders)]  # of a start that was killed
    for mark in old:
        mark.parent.mkdir(parents=True)
        mark.touch()
    found = seen_by(folders)
    assert [one.keeper for one in found] == [names.index(name) for name in names]
    assert {one.keepers for one in found} == {tuple(sorted({names.index(name) for name in names}))}
    assert [path for mark in old for path in mark.parent.iterdir()] == []


def test_folders_that_were_made_to_look_are_removed(tmp_path: Path) -> None:
    assert [one.own for one in seen_by([tmp_path / name / "model" for name in "ab"])] == [0, 1]
    assert list(tmp_path.iterdir()) == []
