"""The clean rows of a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from finetuning.data.table import counted

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Rows:
    """The clean rows of one split.

    Attributes:
        where: The source, as messages name it.
        table: `row` (int64, from 1, the number in the source) and the task's columns as strings.
        key: A hash of the content, part of the cache key of the examples.
        columns: Role → the source's column name.
        renamed: Labels that were renamed by `data.label_map`.
    """

    where: str
    table: Dataset
    key: str
    columns: Mapping[str, str] = field(default_factory=dict)
    renamed: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.table)

    def labels(self) -> Sequence[str]:
        """Return the label cell of each row; empty where the split has none."""
        cells: Sequence[str] = self.table["label"][:] if "label" in self.table.column_names else []
        return cells

    def label_cells(self) -> dict[str, int]:
        """Count each distinct label cell; empty where the split has none."""
        return counted(self.table, "label") if "label" in self.table.column_names else {}
