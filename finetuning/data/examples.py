"""The tokenised examples of a split, and batches of them by length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from finetuning.data.table import numbers

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Drawn:
    """How many examples of one dataset of a mixture an epoch has.

    Attributes:
        name: The dataset, as messages name it.
        size: Its examples, which stand together.
        count: How many of them an epoch has. It may be more than there are.
        first: What the numbers of its rows are added to in the mixture.
    """

    name: str
    size: int
    count: int
    first: int


@dataclass(frozen=True)
class Examples:
    """The tokenised examples of a split.

    Attributes:
        table: One row an example: `input_ids`, `row`, and the columns that the task's `collate` reads.
        lengths: Tokens of each example, int32; of an example with several sequences (`sizes`, say) as many as they
            have when padded to the longest of them.
        rows: The clean rows that the examples were made from, in the same order.
        drawn: The datasets of a mixture, in the order of the table; empty where an epoch has every example once.
    """

    table: Dataset
    lengths: np.ndarray
    rows: Dataset
    drawn: tuple[Drawn, ...] = ()

    @property
    def per_epoch(self) -> int:
        """The number of examples in an epoch."""
        return sum(part.count for part in self.drawn) or len(self)

    def row_shown(self, position: int) -> str:
        """Return the number of an example's row as messages show it, with the dataset of a mixture."""
        number = int(self.fetch([position])[0]["row"])
        part = next((part for part in reversed(self.drawn) if number > part.first), None)
        return str(number) if part is None else f"{part.name} {number - part.first}"

    def label_counts(self, label_names: Sequence[str]) -> Counter[str]:
        """Count the labels of the examples, or of their tokens, by name."""
        found = Counter[int]()
        for label in self.table["label"][:]:
            found.update(label if isinstance(label, list) else [label])
        return Counter({name: found[number] for number, name in enumerate(label_names)})

    def of_first_rows(self, count: int) -> Examples:
        """Return the examples of the first rows."""
        rows = self.rows.select(range(min(count, len(self.rows))))
        kept = np.flatnonzero(np.isin(numbers(self.table, "row"), numbers(rows, "row")))
        return Examples(self.table.select(kept), self.lengths[kept], rows)

    def __len__(self) -> int:
        return len(self.lengths)

    def fetch(self, indices: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
        """Read the examples at these positions, each as a dict of its columns."""
        columns = self.table[[int(index) for index in indices]]
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def batches_by_length(lengths: np.ndarray, token_budget: int) -> list[np.ndarray]:
    """Divide a split into batches of similar length for a pass without gradients.

    The longest batch comes first, so that running out of memory happens early.

    Args:
        lengths: Tokens of each example.
        token_budget: Most tokens of a batch, padding included; a longer example makes a batch of its own.

    Returns:
        int64 positions of each batch.
    """
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    batches: list[np.ndarray] = []
    start = 0
    while start < len(order):
        size = max(1, token_budget // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + size])
        start += size
    return batches
