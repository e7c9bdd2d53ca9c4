"""Prepare windows ahead of time: a thread cuts them into micro-batches and collates these."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

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
_LOOKED_AT = 2**24  # examples among which two typical ones are found


@dataclass(frozen=True)
class ReadyWindow:
    """A window and this process's micro-batches.

    Attributes:
        window: The window.
        batches: The micro-batches; on CUDA in pinned memory.
        token_budget: The budget of tokens that they were cut for.
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
        runtime: Decides which share of a window this process has, and whether batches are pinned.
        shares: Whether examples of a micro-batch that begin alike share their beginning. Compiled layers take rows of
            one form alone.
    """

    task: Task
    tokenizer: PreTrainedTokenizerBase
    examples: Examples
    layout: Layout
    seed: int
    runtime: Runtime
    shares: bool = True

    def plan(self, window: Window, token_budget: int) -> ReadyWindow:
        """Make this process's micro-batches of a window within a budget of tokens."""
        mine = share_of(window, self.examples.lengths, self.runtime.process, self.runtime.processes)
        sequences, lengths = self.examples.sequences_of(mine), self.examples.sequence_lengths
        cuts = self.layout.cut(sequences, lengths, token_budget) if len(mine) else []
        key = RandomKey(self.seed, window.epoch)
        return ReadyWindow(window, [self.runtime.pinned(self._planned(cut, key)) for cut in cuts], token_budget)

    def saved_by_sharing(self) -> float:
        """Return the share of tokens that shared beginnings save, from 0 to 1, in the epoch's first examples."""
        size = min(len(self.examples), 64)
        order = epoch_order(len(self.examples), self.seed, 0)
        rows = self._rows(self.layout.together(self.examples.sequences_of(order[:size])))
        before, after = (
            sum(len(one["input_ids"]) for row in each for one in row)
            for each in (rows, self.layout.joined(self.task, rows))
        )
        return 1 - after / max(1, before)

    def sample(self) -> Batch:
        """Make a micro-batch of two typical examples. They are the same two in every run on these examples."""
        lengths, order = self.examples.lengths, epoch_order(len(self.examples), self.seed, 0)[:_LOOKED_AT]
        others = order[lengths[order] != lengths[order[0]]]  # of another length, so that there is padding
        two = np.array([order[0], (others if len(others) else order)[-1]])
        return self._of_examples(two)

    def idle(self) -> Batch:
        """Make a micro-batch of the shortest example that adds nothing to a window."""
        shortest = np.array([int(np.argmin(self.examples.lengths))])
        return replace(self._of_examples(shortest), is_idle=True)

    def heaviest(self, token_budget: int) -> Batch:
        """Make a micro-batch of the longest examples that a budget of tokens takes."""
        order = np.argsort(self.examples.lengths, kind="stable")[::-1]
        first = self.examples.sequences_of(order[:1])
        longest = max(1, int(self.examples.sequence_lengths[first].max()))
        return self._of_examples(order[: max(1, token_budget // (longest * len(first)))])

    def _of_examples(self, indices: np.ndarray) -> Batch:
        return self._collate(self.layout.together(self.examples.sequences_of(indices)), RandomKey(self.seed, 0))

    def _planned(self, cut: Cut, key: RandomKey) -> Batch:
        """Collate a micro-batch of a window, in which beginnings may be shared."""
        rows = self._rows(cut)
        joined = self.layout.joined(self.task, rows) if self.shares else rows
        batch = self.layout.collate(self.task, joined, self.tokenizer, key)
        if sum(map(len, joined)) == sum(map(len, rows)):
            return batch
        tokens = sum(len(example["input_ids"]) for row in rows for example in row)
        return replace(batch, tokens=tokens, sequences=sum(map(len, rows)))

    def _collate(self, cut: Cut, key: RandomKey) -> Batch:
        return self.layout.collate(self.task, self._rows(cut), self.tokenizer, key)

    def _rows(self, cut: Cut) -> list[list[dict[str, Any]]]:
        found = iter(self.examples.fetch_sequences(np.concatenate(cut)))  # one read: each takes 0.1 ms
        return [list(itertools.islice(found, len(row))) for row in cut]


def planned_ahead(plan: Callable[[Window], ReadyWindow], windows: Iterable[Window]) -> Iterator[ReadyWindow]:
    """Plan windows in a thread while earlier ones are computed, and yield them in order.

    An error during planning is raised when its window is due.
    """
    waiting: deque[Future[ReadyWindow]] = deque()
    with ThreadPoolExecutor(1, "windows") as pool:
        try:
            for window in windows:
                waiting.append(pool.submit(plan, window))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
