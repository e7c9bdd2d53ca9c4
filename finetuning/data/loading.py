"""The splits of one dataset: its sources cleaned, through the cache, and what it lacks held out of train."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from exceptions import DataError
from finetuning.config.schema import DataSettings, Settings
from finetuning.data.cache import FORMAT, Cache, code_key, settings_key
from finetuning.data.cleaning import Cleaner
from finetuning.data.columns import (
    check_label_apart,
    check_meaning,
    check_used,
    find_columns,
    group_column,
    tell_unread,
    without_targets,
)
from finetuning.data.prepared import cached_rows
from finetuning.data.rows import Rows
from finetuning.data.sources import Raw, find_sources
from finetuning.data.splits import hold_out
from finetuning.files import content_key
from finetuning.tasks.base import Task

_log = logging.getLogger(__name__)
_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class SplitLoader:
    """Loads the splits of the dataset that the settings name.

    Attributes:
        settings: The settings in force.
        task: The task, under these settings.
        cache: Where clean rows are kept.
    """

    settings: Settings
    task: Task
    cache: Cache

    def of_mixed(self, data: DataSettings) -> Self:
        """Return the loader of another dataset; data: the settings for it."""
        settings = self.settings.model_copy(update={"data": data})
        return type(self)(settings, type(self.task)(settings), self.cache)

    def to_train(self) -> dict[str, Rows]:
        """Load the splits to train on.

        Returns:
            `train`, `validation` (held out of train if the source has none) and, if there is one, `test`.

        Raises:
            DataError: The source has no train split, or its rows cannot be used.
        """
        return self._with_held_out(self._with_train())

    def whole_train(self) -> Rows:
        """Load train with nothing held out of it; raises like `to_train`."""
        return self.clean(self._with_train()["train"], "train")

    def to_evaluate(self) -> dict[str, Rows]:
        """Load the splits that have labels, as they are in training if there is a train split."""
        sources = self._sources()
        return self._with_held_out(sources) if "train" in sources else self._clean_splits(sources)

    def gathered(self, raw: Raw) -> Raw:
        """Return a source with the rows joined of which several make one row of the task."""
        found = self.task.reads.gathered(raw.columns, raw.rows, raw.where)
        if found is None:
            return raw
        columns, rows, note = found
        return replace(raw, columns=columns, rows=rows, notes=(*raw.notes, note))

    def _sources(self) -> dict[str, Raw]:
        return {split: self.gathered(raw) for split, raw in find_sources(self.settings.data).items()}

    def clean(self, raw: Raw, split: str) -> Rows:
        """Clean the rows of a source, or take them from the cache, and log what was found in them.

        Args:
            raw: The source.
            split: Its split, whose limit of rows holds.

        Returns:
            The rows; of a split other than train none where no row has a label.

        Raises:
            DataError: A column is missing, or too many rows cannot be used.
        """
        data, reads = self.settings.data, self.task.reads
        limits = {"train": data.train_rows, "validation": data.validation_rows, "test": data.test_rows}
        columns, limit = reads.columns(raw.columns), limits.get(split)
        if split == "train":
            check_meaning(columns, self.task, raw)
            check_used(columns, self.task, raw)
            columns = (*columns, *group_column(data))
        names = find_columns(columns, raw)
        if split == "train":
            check_label_apart(names, raw)
            tell_unread(names, raw)
        key = content_key(FORMAT, raw.key, json.dumps(names), str(limit), self.task.name, code_key(reads),
                          settings_key(self.task.settings, "rows"))  # fmt: skip
        rows, findings = cached_rows(raw, Cleaner.to_train(self.task, data, columns, names, limit), self.cache, key)
        targets = [column.role for column in columns if column.target and not column.optional]
        if split != "train" and findings.all_lack(targets):
            _leave_out(raw, split, f"'{names[targets[0]]}' 열이 모두 비어")
            return rows
        findings.check(raw.where, names, data.max_bad_rows, raw.notes)
        findings.report(raw.where, raw.notes)
        return replace(rows, raw=raw, told=tuple(line for _, line in findings.told(raw.notes)))

    def _with_train(self) -> dict[str, Raw]:
        """Find the sources; raise DataError where train is not among them."""
        sources = self._sources()
        if "train" not in sources:
            raise DataError(
                f"학습(train) 데이터가 없습니다. 찾은 split: {', '.join(sources) or '없음'}",
                where=f"데이터: {self.settings.data.shown_name()}",
                remedy="파일 이름에 train을 넣거나(예: train.csv), data.train_file에 학습 파일을 직접 쓰세요.",
            )
        return sources

    def _with_held_out(self, sources: Mapping[str, Raw]) -> dict[str, Rows]:
        """Clean the splits of a source with train, and hold out of train what it lacks."""
        data = self.settings.data
        splits = self._clean_splits(self._with_targets(sources))
        if "test" not in splits and data.test_split > 0:
            splits["train"], splits["test"] = self._hold_out(splits["train"], "test", data.test_split)
        if "validation" not in splits:
            splits["train"], splits["validation"] = self._hold_out(splits["train"], "validation", data.validation_split)
        return {name: splits[name] for name in _SPLITS if name in splits}

    def _clean_splits(self, sources: Mapping[str, Raw]) -> dict[str, Rows]:
        """Clean each split; one without rows is left out, unless it is train."""
        splits = {name: self.clean(raw, name) for name, raw in sources.items()}
        return {name: rows for name, rows in splits.items() if name == "train" or len(rows)}

    def _with_targets(self, sources: Mapping[str, Raw]) -> dict[str, Raw]:
        """Leave out, with a warning, the splits that lack the column to predict."""
        lacking = without_targets(sources, self.task)
        for split, column in lacking.items():
            _leave_out(sources[split], split, f"'{column}' 열이 없어")
        return {split: raw for split, raw in sources.items() if split not in lacking}

    def _hold_out(self, train: Rows, name: str, share: float) -> tuple[Rows, Rows]:
        return hold_out(train, name, share, self.settings.training.seed, self.task)


def _leave_out(raw: Raw, split: str, why: str) -> None:
    _log.warning(
        "%s: %s %s 데이터로 쓰지 않습니다. 예측하려면 학습한 뒤 predict --input에 쓰세요.", raw.where, why, split
    )
