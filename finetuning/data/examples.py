"""The tokenised examples of a split, and batches of them by length."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from finetuning.data.table import list_items, list_lengths, numbers, selected, values_of
from finetuning.types import OF_TOKENS

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


PARTS, CONTENTS = "parts", "contents"  # tokens of each of an example's sequences; two int32 of a hash of each


@dataclass(frozen=True)
class Sequences:
    """The sequences of a split's examples, one behind the other, where an example has several.

    Attributes:
        lengths: Tokens of each sequence, int32.
        owners: Position of each sequence's example, int64.
        starts: The first sequence of each example, and the number of all sequences, int64.
    """

    lengths: np.ndarray
    owners: np.ndarray
    starts: np.ndarray


@dataclass(frozen=True)
class Examples:
    """The tokenised examples of a split.

    An example may have several sequences, one behind the other in its `input_ids`, with their lengths in the column
    `parts`. Windows are made of examples, micro-batches of sequences: those of one example need not be together. An
    example without `parts` is a sequence itself.

    Attributes:
        table: One row an example: `input_ids`, `row`, and the columns that the task's `collate` reads.
        lengths: Tokens of each example, int32; of an example whose sequences stay together (`sizes`) as many as they
            have when padded to the longest of them.
        rows: The clean rows that the examples were made from, in the same order.
        drawn: The datasets of a mixture, in the order of the table; empty where an epoch has every example once.
        neighbours: How many similar examples stand together in an epoch's order; 0 for a plain random order.
    """

    table: Dataset
    lengths: np.ndarray
    rows: Dataset
    drawn: tuple[Drawn, ...] = ()
    neighbours: int = 0

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
        labels, counts = np.unique(values_of(self.table, "label"), return_counts=True)
        found = dict(zip(labels.tolist(), counts.tolist(), strict=True))
        return Counter({name: found.get(number, 0) for number, name in enumerate(label_names)})

    def of_first_rows(self, count: int) -> Examples:
        """Return the examples of the first rows."""
        rows = self.rows.select(range(min(count, len(self.rows))))
        kept = np.flatnonzero(np.isin(numbers(self.table, "row"), numbers(rows, "row")))
        return Examples(selected(self.table, kept), self.lengths[kept], rows)

    def __len__(self) -> int:
        return len(self.lengths)

    # --- sequences ---

    @cached_property
    def _sequences(self) -> Sequences | None:
        """Where the sequences of the examples are; None where each example is one."""
        if PARTS not in self.table.column_names:
            return None
        counts = list_lengths(self.table, PARTS).astype(np.int64)
        lengths = list_items(self.table, PARTS).astype(np.int32)
        return Sequences(lengths, np.repeat(np.arange(len(counts)), counts), np.concatenate([[0], counts.cumsum()]))

    @property
    def sequence_lengths(self) -> np.ndarray:
        """Tokens of each sequence of the split, int32."""
        return self.lengths if self._sequences is None else self._sequences.lengths

    def sequences_of(self, positions: np.ndarray) -> np.ndarray:
        """Return the positions of the sequences of these examples, int64."""
        if self._sequences is None:
            return positions
        starts = self._sequences.starts
        ranges = [np.arange(starts[position], starts[position + 1]) for position in positions]
        return np.concatenate(ranges) if ranges else np.empty(0, dtype=np.int64)

    def fetch_sequences(self, indices: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
        """Read the sequences at these positions, each with its example's position and its place there."""
        if self._sequences is None:
            return self.fetch(indices)
        places = np.asarray(indices, dtype=np.int64)
        owners = self._sequences.owners[places]
        examples, inverse = np.unique(owners, return_inverse=True)
        found, within = self.fetch(examples), places - self._sequences.starts[owners]
        return [
            _sequence(found[number], owner, place)
            for number, owner, place in zip(inverse.tolist(), owners.tolist(), within.tolist(), strict=True)
        ]

    def distinct_sequences(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the first sequence of each content, and for every sequence the place of its own among these."""
        if self._sequences is None:
            everything = np.arange(len(self))
            return everything, everything
        contents = np.ascontiguousarray(list_items(self.table, CONTENTS).astype(np.int32)).view(np.int64)
        _, first, inverse = np.unique(contents, return_index=True, return_inverse=True)
        return first, inverse

    def by_example(self, found: Sequence[Any], places: np.ndarray) -> list[Any]:
        """Collect what was found of distinct sequences.

        Args:
            found: Something of each distinct sequence.
            places: For every sequence the place of its own, from `distinct_sequences`.

        Returns:
            What was found of each example: a list of its sequences', or the same where an example is one.
        """
        if self._sequences is None:
            return list(found)
        starts = self._sequences.starts.tolist()
        return [[found[place] for place in places[start:end]] for start, end in itertools.pairwise(starts)]

    def fetch(self, indices: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
        """Read the examples at these positions, each as a dict of its columns."""
        columns = self.table[[int(index) for index in indices]]
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _sequence(example: dict[str, Any], position: int, place: int) -> dict[str, Any]:
    """Return one of an example's sequences: its tokens, where it stands, and what it is known by."""
    start = sum(example[PARTS][:place])
    end = start + example[PARTS][place]
    low, high = example[CONTENTS][2 * place : 2 * place + 2]
    others = {name: value for name, value in example.items() if name not in (*OF_TOKENS, PARTS, CONTENTS)}
    tokens = {name: example[name][start:end] for name in OF_TOKENS if name in example}
    return {**others, **tokens, "example": position, "place": place, "content": (high << 32) | (low & 0xFFFFFFFF)}


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
