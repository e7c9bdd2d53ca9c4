"""A group of machines with one process each that are threads: they have one process number, as containers may have."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

_T = TypeVar("_T")


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

    def spread(self, tensor: torch.Tensor | None, shape: Sequence[int], dtype: torch.dtype, source: int) -> Any:
        """The tensor of one machine."""
        return self.by_process(tensor)[source]

    @property
    def is_main(self) -> bool:
        """Whether this is the first machine."""
        return self.process == 0


def on_machines(folders: Sequence[Path], work: Callable[[Path, Any], _T]) -> list[_T]:
    """What the work returns on each machine, given its folder and its runtime."""
    group = Group(len(folders))
    with ThreadPoolExecutor(len(folders)) as pool:
        return list(pool.map(work, folders, [Machine(number, group) for number in range(len(folders))]))
