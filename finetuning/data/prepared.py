"""Clean rows: written to the cache for a run, or made in memory a chunk at a time for prediction."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from finetuning.data.arrow import chunks, in_memory, row_tables, write_tables
from finetuning.data.cache import Cache
from finetuning.data.cleaning import Cleaner
from finetuning.data.findings import Findings
from finetuning.data.rows import Rows
from finetuning.data.sources import Raw


def cached_rows(raw: Raw, cleaner: Cleaner, cache: Cache, key: str) -> tuple[Rows, Findings]:
    """Clean a source's rows into the cache, or take them and their findings from there.

    Args:
        raw: The source.
        cleaner: How its rows are cleaned.
        cache: Where the rows are kept.
        key: A hash of the source's content and of all that cleaning depends on.

    Returns:
        The rows, memory-mapped, and what cleaning found.

    Raises:
        ResourceError: The disk is full or cannot be written.
    """
    from datasets import Dataset

    path, findings_path = cache.path("rows", key), cache.path("rows", key, ".json")
    if cache.has(path, findings_path):
        findings = Findings(**json.loads(findings_path.read_text(encoding="utf-8")))
    else:
        findings = Findings()
        with cache.write(path) as partial:
            write_tables(row_tables(cleaner.clean(raw.rows, findings), cleaner.names), partial)
            findings_path.write_text(json.dumps(asdict(findings), ensure_ascii=False), encoding="utf-8")
    rows = Rows(raw.where, Dataset.from_file(str(path)), key, cleaner.names, frozenset(findings.renamed))
    return rows, findings


@dataclass(frozen=True)
class Unlabelled:
    """Rows to predict. They are read from their source and cleaned in memory, and are never written to the disk.

    Attributes:
        raw: The source.
        cleaner: How its rows are cleaned.
    """

    raw: Raw
    cleaner: Cleaner

    def check(self) -> None:
        """Read all rows once, and log what cleaning finds in them, before any time goes into predictions.

        Raises:
            DataError: There is no row, or the source cannot be read to its end.
        """
        findings = Findings()
        for _ in self.cleaner.clean(self.raw.rows, findings):
            pass
        findings.check(self.raw.where, {}, 1.0, self.raw.notes)  # a text to predict may be a number
        findings.report(self.raw.where, self.raw.notes)

    def chunks(self) -> Iterator[tuple[Rows, list[dict[str, Any]]]]:
        """Read and clean the rows, at most 10,000 rows or 64 million characters at a time.

        Yields:
            The clean rows of a chunk, and all of its rows as they are in the source.
        """
        first = 1
        for originals in self._originals():
            clean = self.cleaner.clean(originals, Findings(), first)
            yield Rows(self.raw.where, in_memory(row_tables(clean, self.cleaner.names)), key=""), originals
            first += len(originals)

    def _originals(self) -> Iterator[list[dict[str, Any]]]:
        rows = (
            {name: None if cell != cell else cell for name, cell in row.items()}  # NaN is no JSON
            for row in self.raw.rows
        )
        yield from chunks(rows)
