"""Windows made ready for the device ahead of time: cut into micro-batches and collated by a thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from finetuning.data.examples import Examples
from finetuning.device.runtime import Runtime
from finetuning.tasks.base import Task
from finetuning.types import Batch, RandomKey
from finetuning.windows.layouts import Cut, Layout
from finetuning.windows.order import Window, epoch_order, share_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_AHEAD = 2


@dataclass(frozen=True)
class ReadyWindow:
    """A window and this process's micro-batches of it.

    Attributes:
        window: The window.
        batches: The micro-batches; on CUDA in pinned memory.
        token_budget: The budget of padded tokens that they were cut to.
    """

    window: Window
    batches: list[Batch]
    token_budget: int


@dataclass(frozen=True)
class WindowPlanner:
    """Cuts and collates windows. A plan is a pure function of window and token budget, so any thread may make it.

    Attributes:
        task: Collates examples.
        tokenizer: Gives the padding id.
        examples: The training split.
        layout: How sequences become tensors.
        seed: Seed of random choices in batches, such as masks.
        runtime: Which share of a window is this process's, and whether batches are pinned.
    """

    task: Task
    tokenizer: PreTrainedTokenizerBase
    examples: Examples
    layout: Layout
    seed: int
    runtime: Runtime

    def plan(self, window: Window, token_budget: int) -> ReadyWindow:
        """Make this process's micro-batches of a window within a budget of padded tokens."""
        mine = share_of(window, self.examples.lengths, self.runtime.process, self.runtime.processes)
        cuts = self.layout.cut(mine, self.examples.lengths, token_budget) if len(mine) else []
        key = RandomKey(self.seed, window.epoch)
        return ReadyWindow(window, [self.runtime.pinned(self._collate(cut, key)) for cut in cuts], token_budget)

    def sample(self) -> Batch:
        """Make a micro-batch of two examples like those of the run: the same two in every run of these examples."""
        lengths, order = self.examples.lengths, epoch_order(len(self.examples), self.seed, 0)
        others = order[lengths[order] != lengths[order[0]]]  # of another length, so that there is padding
        two = np.array([order[0], (others if len(others) else order)[-1]])
        return self._collate(self.layout.together(two), RandomKey(self.seed, 0))

    def _collate(self, cut: Cut, key: RandomKey) -> Batch:
        rows = [self.examples.fetch(row) for row in cut]
        return self.layout.collate(self.task, rows, self.tokenizer, key)


def planned_ahead(
    plan: Callable[[Window], ReadyWindow], windows: Iterable[Window], ahead: int = _AHEAD
) -> Iterator[ReadyWindow]:
    """Plan windows in one thread while the window before is computed, and yield them in their order.

    An error of a plan is raised where its window would have come.
    """
    waiting: deque[Future[ReadyWindow]] = deque()
    with ThreadPoolExecutor(1, "windows") as pool:
        try:
            for window in windows:
                waiting.append(pool.submit(plan, window))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
