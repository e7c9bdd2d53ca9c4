"""DataManager: any source → splits of clean rows → tokenised examples. Each stage is cached by its content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from exceptions import DataError
from finetuning.config.schema import Settings
from finetuning.data.cache import Cache
from finetuning.data.cleaning import Cleaner
from finetuning.data.columns import find_columns
from finetuning.data.examples import Examples
from finetuning.data.few_rows import check_every_label_stays, with_columns
from finetuning.data.label_check import check_known, check_map, tell_doubts
from finetuning.data.loading import SplitLoader
from finetuning.data.mixing import mixed, mixed_examples
from finetuning.data.prepared import Unlabelled
from finetuning.data.repeats import tell_repeats
from finetuning.data.rows import Rows
from finetuning.data.sources import Raw, corpus_of, raw_file, raw_files, raw_lines
from finetuning.data.tokenizing import Encoder, LengthReport, usable_examples, write_examples
from finetuning.tasks.base import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class DataManager:
    """Reads the data of one run for one task."""

    def __init__(self, settings: Settings, task: Task) -> None:
        self.data, self.task = settings.data, task
        self.cache = Cache.of(settings.data)
        self.loader = SplitLoader(settings, task, self.cache)

    # --- source → rows ---

    def load_splits(self) -> dict[str, Rows]:
        """Load the splits to train on, and log how many of their texts occur more than once.

        Returns:
            `train`, `validation` (held out of train if the source has none) and, if there is one, `test`.

        Raises:
            DataError: The source has no train split, or its rows cannot be used.
        """
        splits = mixed(self.data, self.loader) if self.data.mix else self.loader.to_train()
        renamed = {label for rows in splits.values() for label in rows.renamed}
        check_map(self.data.label_map, renamed, f"데이터: {self.data.shown_name()}")
        return tell_repeats(splits, self.task.reads.has_labels)

    def load_to_train(self) -> Rows:
        """Load all rows of train: nothing is held out of them."""
        return self.loader.whole_train()

    def load_split(self, wanted: str | None) -> tuple[str, Rows]:
        """Load one split with its labels.

        Args:
            wanted: Its name; None for test, else validation, else the only one.

        Returns:
            The split's name and its rows.

        Raises:
            DataError: There is no such split, or none has labels.
        """
        splits = mixed(self.data, self.loader) if self.data.mix else self.loader.to_evaluate()
        if not splits:
            raise _nothing_to_score(f"데이터: {self.data.shown_name()}")
        name = wanted or next(name for name in ("test", "validation") if name in splits)
        if name not in splits:
            raise DataError(
                f"'{wanted}' split이 없습니다.",
                where=f"데이터: {self.data.shown_name()}",
                remedy=f"있는 split: {', '.join(splits)}",
            )
        return name, splits[name]

    def load_file(self, path: Path) -> Rows:
        """Load all rows of a file, with their labels."""
        rows = self.loader.clean(self.loader.gathered(raw_file(path, self.data)), "test")
        if not len(rows):
            raise _nothing_to_score(str(path))
        return rows

    def load_unlabelled(self, path: Path | None, lines: Iterable[str]) -> Unlabelled:
        """Open rows to predict. They are cleaned in memory and never cached.

        Args:
            path: A file, or None to read `lines`.
            lines: Lines of text.

        Returns:
            The rows.

        Raises:
            DataError: There is no row, or a column is missing.
        """
        if path is not None:
            raw = raw_file(path, self.data)
        else:
            asked = [column for column in self.task.reads.columns(()) if not (column.target or column.optional)]
            raw = raw_lines(lines, [column.name or column.role for column in asked])
        return self.unlabelled(raw)

    def load_passages(self, path: Path) -> Unlabelled:
        """Open the passages of a file: the task's column of them alone; see `load_unlabelled`."""
        return self.passages(raw_file(path, self.data))

    def passages(self, raw: Raw) -> Unlabelled:
        """Return a source's passages; raise DataError where it has no column of them."""
        columns = [replace(one, target=False) for one in self.task.reads.columns(raw.columns) if one.role == "context"]
        unlabelled = Unlabelled(raw, Cleaner.to_predict(self.task, self.data, columns, find_columns(columns, raw)))
        unlabelled.check()
        return unlabelled

    def corpus(self, path: Path | None) -> Unlabelled | None:
        """Open the passages of a file or, without one, those of data that have a corpus; None for other data."""
        files = corpus_of(self.data) if path is None else [path]
        return self.passages(raw_files(files, self.data)) if files else None

    def unlabelled(self, raw: Raw) -> Unlabelled:
        """Return a source's rows to predict; see `load_unlabelled`."""
        columns = [column for column in self.task.reads.columns(raw.columns) if not column.target]
        cleaner = Cleaner.to_predict(self.task, self.data, columns, find_columns(columns, raw))
        unlabelled = Unlabelled(raw, cleaner)
        unlabelled.check()
        return unlabelled

    # --- labels ---

    def label_counts(self, rows: Rows) -> Counter[str]:
        """Count each label of a split; empty where it has none."""
        counts = Counter[str]()
        for cell, count in rows.label_cells().items():
            for label in self.task.reads.labels_in(cell):
                counts[label] += count
        return counts

    def label_profile(self, rows: Rows) -> tuple[list[str], Counter[str]]:
        """Return a split's roles and label counts, from which `refined_task` finds the exact task."""
        return rows.table.column_names, self.label_counts(rows)

    def label_names(self, splits: Mapping[str, Rows]) -> tuple[str, ...]:
        """Return train's label names in the order of their ids; raise DataError if another split has other labels."""
        counts = self.label_counts(splits["train"])
        if self.task.reads.has_labels:
            tell_doubts(self.task.reads.written_labels(counts), splits["train"].where)
        is_closed = self.task.reads.has_labels and not self.task.reads.labels_are_open
        if is_closed and "validation" in splits:
            check_every_label_stays(splits, set(self.label_counts(splits["validation"])) - set(counts))
        try:
            names = self.task.reads.label_names(counts)
        except DataError as error:
            raise with_columns(error, splits["train"], self.task.settings) from None
        if names:
            for rows in splits.values():
                self.check_labels(rows, names)
        return names

    def check_labels(self, rows: Rows, names: Sequence[str]) -> None:
        """Raise DataError if a split has a label outside these names, unless the task allows it; it names the row."""
        if self.task.reads.labels_are_open:
            return
        for own in rows.datasets():
            check_known(own, names, self.task.reads)

    # --- rows → examples ---

    def encode(
        self, rows: Rows, tokenizer: PreTrainedTokenizerBase, label_names: Sequence[str], max_length: int
    ) -> Examples:
        """Tokenise a split, or take its examples from the cache; log how many texts were cut or dropped.

        Args:
            rows: The split.
            tokenizer: The model's tokenizer.
            label_names: Label names in the order of their ids.
            max_length: Most tokens of an example.

        Returns:
            The examples.

        Raises:
            DataError: No example is left.
        """
        from datasets import Dataset

        if rows.parts:
            made = [self.encode(part.rows, tokenizer, label_names, max_length) for part in rows.parts]
            return replace(mixed_examples(made, rows.parts), neighbours=self.task.encodes.neighbours)
        encoder = Encoder(self.task, tokenizer, label_names, max_length)
        path = self.cache.path("examples", encoder.key(rows))
        if not self.cache.has(path):
            with self.cache.write(path) as partial:
                write_examples(rows.table, encoder, partial)
        table = Dataset.from_file(str(path))
        report = LengthReport(rows.where, max_length, self.task.encodes.why_several(), self.task.encodes.reads_whole)
        report.add(table)
        report.log()
        report.check(self.data.max_bad_rows)
        return replace(usable_examples(table, rows.table), neighbours=self.task.encodes.neighbours)

    def prune_cache(self) -> None:
        """Remove old files of the cache; call it once everything of this run has been loaded."""
        self.cache.prune()


def _nothing_to_score(where: str) -> DataError:
    return DataError(
        "라벨이 있는 평가할 데이터가 없습니다.",
        where=where,
        remedy="정답이 있는 데이터를 지정하거나, 정답 없이 예측하려면 predict를 쓰세요.",
    )
