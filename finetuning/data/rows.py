"""The clean rows of a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from finetuning.data.table import counted

if TYPE_CHECKING:
    from datasets import Dataset

    from finetuning.data.sources import Raw


@dataclass(frozen=True)
class Rows:
    """The clean rows of one split.

    Attributes:
        where: The source, as messages name it.
        table: `row` (int64, from 1, the number in the source) and the task's columns as strings.
        key: A hash of the content, part of the cache key of the examples.
        columns: Role → the source's column name.
        renamed: Labels that were renamed by `data.label_map`.
        parts: The datasets of a mixture, in the order of the table; empty for one dataset.
        raw: The source with all of its columns; None for a mixture.
        told: What cleaning found, a sentence each, in Korean.
        in_train: How many of another split's rows have a text that is in train, too.
    """

    where: str
    table: Dataset
    key: str
    columns: Mapping[str, str] = field(default_factory=dict)
    renamed: frozenset[str] = frozenset()
    parts: tuple[Part, ...] = ()
    raw: Raw | None = None
    told: tuple[str, ...] = ()
    in_train: int = 0

    def datasets(self) -> Sequence[Rows]:
        """Return the rows of each dataset, of which a mixture has several."""
        return [part.rows for part in self.parts] or [self]

    def __len__(self) -> int:
        return len(self.table)

    def labels(self) -> Sequence[str]:
        """Return the label cell of each row; empty where the split has none."""
        cells: Sequence[str] = self.table["label"][:] if "label" in self.table.column_names else []
        return cells

    def label_cells(self) -> dict[str, int]:
        """Count each distinct label cell; empty where the split has none."""
        return counted(self.table, "label") if "label" in self.table.column_names else {}


@dataclass(frozen=True)
class Part:
    """The rows of one dataset of a mixture.

    Attributes:
        name: The dataset, as messages name it.
        rows: Its rows, numbered as in their source.
        weight: Its weight beside those of the other datasets.
        first: What its row numbers are added to in the mixture.
    """

    name: str
    rows: Rows
    weight: float
    first: int
