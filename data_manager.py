"""DataManager: any source → splits of clean rows → tokenised examples. Each stage is cached by its content."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from exceptions import DataError
from finetuning.config.schema import Settings
from finetuning.data.cache import FORMAT, Cache, code_key, settings_key
from finetuning.data.cleaning import Cleaner
from finetuning.data.columns import (
    check_meaning,
    check_used,
    find_columns,
    group_column,
    tell_unread,
    without_targets,
)
from finetuning.data.examples import Examples
from finetuning.data.few_rows import check_every_label_stays, with_columns
from finetuning.data.label_check import check_known, check_map, tell_doubts
from finetuning.data.prepared import Unlabelled, cached_rows
from finetuning.data.repeats import tell_repeats
from finetuning.data.rows import Rows
from finetuning.data.sources import Raw, find_sources, raw_file, raw_lines
from finetuning.data.splits import hold_out
from finetuning.data.tokenizing import Encoder, LengthReport, usable_examples, write_examples
from finetuning.files import content_key
from finetuning.tasks.base import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger(__name__)


class DataManager:
    """Reads the data of one run for one task."""

    def __init__(self, settings: Settings, task: Task) -> None:
        self.data, self.task, self.seed = settings.data, task, settings.training.seed
        self.cache = Cache.of(settings.data)

    # --- source → rows ---

    def load_splits(self) -> dict[str, Rows]:
        """Load the splits to train on.

        Returns:
            `train`, `validation` (held out of train if the source has none) and, if there is one, `test`.

        Raises:
            DataError: The source has no train split, or its rows cannot be used.
        """
        sources = find_sources(self.data)
        if "train" not in sources:
            raise DataError(
                f"학습(train) 데이터가 없습니다. 찾은 split: {', '.join(sources) or '없음'}",
                where=f"데이터: {self.data.shown_name()}",
                remedy="파일 이름에 train을 넣거나(예: train.csv), data.train_file에 학습 파일을 직접 쓰세요.",
            )
        splits = self._with_held_out(sources)
        renamed = {label for rows in splits.values() for label in rows.renamed}
        check_map(self.data.label_map, renamed, f"데이터: {self.data.shown_name()}")
        tell_repeats(splits, self.task.reads.has_labels)
        return splits

    def _with_held_out(self, sources: Mapping[str, Raw]) -> dict[str, Rows]:
        """Clean the splits of a source with train, and hold out of train what it lacks."""
        splits = self._clean_splits(self._with_targets(sources))
        if "test" not in splits and self.data.test_split > 0:
            splits["train"], splits["test"] = self._hold_out(splits["train"], "test", self.data.test_split)
        if "validation" not in splits:
            splits["train"], splits["validation"] = self._hold_out(
                splits["train"], "validation", self.data.validation_split
            )
        return {name: splits[name] for name in ("train", "validation", "test") if name in splits}

    def load_split(self, wanted: str | None) -> tuple[str, Rows]:
        """Load one split with its labels.

        Args:
            wanted: Its name; None for test, else validation, else the only one.

        Returns:
            The split's name and its rows.

        Raises:
            DataError: There is no such split, or none has labels.
        """
        sources = find_sources(self.data)
        splits = self._with_held_out(sources) if "train" in sources else self._clean_splits(sources)
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
        rows = self._clean(raw_file(path, self.data), "test")
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
        columns = [column for column in self.task.reads.columns(raw.columns) if not column.target]
        cleaner = Cleaner.to_predict(self.task, self.data, columns, find_columns(columns, raw))
        unlabelled = Unlabelled(raw, cleaner)
        unlabelled.check()
        return unlabelled

    # --- rows → clean rows ---

    def _clean_splits(self, sources: Mapping[str, Raw]) -> dict[str, Rows]:
        """Clean each split; one without rows is left out, unless it is train."""
        splits = {name: self._clean(raw, name) for name, raw in sources.items()}
        return {name: rows for name, rows in splits.items() if name == "train" or len(rows)}

    def _clean(self, raw: Raw, split: str) -> Rows:
        limits = {"train": self.data.train_rows, "validation": self.data.validation_rows, "test": self.data.test_rows}
        columns, limit = self.task.reads.columns(raw.columns), limits.get(split)
        if split == "train":
            check_meaning(columns, self.task, raw)
            check_used(columns, self.task, raw)
            columns = (*columns, *group_column(self.data))
        names = find_columns(columns, raw)
        if split == "train":
            tell_unread(names, raw)
        key = content_key(FORMAT, raw.key, json.dumps(names), str(limit), self.task.name, code_key(self.task.reads),
                          settings_key(self.task.settings, "rows"))  # fmt: skip
        cleaner = Cleaner.to_train(self.task, self.data, columns, names, limit)
        rows, findings = cached_rows(raw, cleaner, self.cache, key)
        targets = [column.role for column in columns if column.target and not column.optional]
        if split != "train" and findings.all_lack(targets):
            _leave_out(raw, split, f"'{names[targets[0]]}' 열이 모두 비어")
            return rows
        findings.check(raw.where, names, self.data.max_bad_rows)
        findings.report(raw.where, raw.notes)
        return rows

    def _with_targets(self, sources: Mapping[str, Raw]) -> dict[str, Raw]:
        """Leave out, with a warning, the splits that lack the column to predict."""
        lacking = without_targets(sources, self.task)
        for split, column in lacking.items():
            _leave_out(sources[split], split, f"'{column}' 열이 없어")
        return {split: raw for split, raw in sources.items() if split not in lacking}

    def _hold_out(self, train: Rows, name: str, share: float) -> tuple[Rows, Rows]:
        return hold_out(train, name, share, self.seed, self.task)

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
        if self.task.reads.has_labels and "validation" in splits:
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
        """Raise DataError if a split has a label outside these names; the message names its row."""
        check_known(rows, names, self.task.reads)

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

        encoder = Encoder(self.task, tokenizer, label_names, max_length)
        path = self.cache.path("examples", encoder.key(rows))
        if not self.cache.has(path):
            with self.cache.write(path) as partial:
                write_examples(rows.table, encoder, partial)
        table = Dataset.from_file(str(path))
        report = LengthReport(rows.where, max_length, self.task.encodes.why_several())
        report.add(table)
        report.log()
        report.check(self.data.max_bad_rows)
        return usable_examples(table, rows.table)

    def prune_cache(self) -> None:
        """Remove old files of the cache; call it once everything of this run has been loaded."""
        self.cache.prune()


def _leave_out(raw: Raw, split: str, why: str) -> None:
    _log.warning(
        "%s: %s %s 데이터로 쓰지 않습니다. 예측하려면 학습한 뒤 predict --input에 쓰세요.", raw.where, why, split
    )


def _nothing_to_score(where: str) -> DataError:
    return DataError(
        "라벨이 있는 평가할 데이터가 없습니다.",
        where=where,
        remedy="정답이 있는 데이터를 지정하거나, 정답 없이 예측하려면 predict를 쓰세요.",
    )
