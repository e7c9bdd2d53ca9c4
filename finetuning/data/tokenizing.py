"""Rows → examples: encoded in batches on all cores, in the order of the rows, to a file or in memory."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exceptions import DataError
from finetuning.data import parallel
from finetuning.data.arrow import example_batch, in_memory, joined, write_tables
from finetuning.data.cache import FORMAT, code_key, settings_key
from finetuning.data.examples import Examples
from finetuning.data.rows import Rows
from finetuning.data.table import Cells, counted, list_lengths, numbers, selected, text_sizes
from finetuning.files import content_key
from finetuning.tasks.base import Task

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger(__name__)
_ROWS_AT_A_TIME, _BYTES_AT_A_TIME = 1000, 1 << 24  # of text; a longer text is encoded alone
_ROWS_WORTH_PROCESSES = 5000  # fewer rows are done by the tokenizer's own threads before processes have started
_MOST_PROCESSES = 16  # one reader takes examples from no more
_SHOWN = 5
_MUCH_DROPPED = 0.01

Encode = Callable[[Mapping[str, Sequence[Any]]], Mapping[str, Sequence[Any]]]


@dataclass(frozen=True)
class Encoder:
    """Encodes rows for a task: a function of columns of rows that returns columns of examples."""

    task: Task
    tokenizer: PreTrainedTokenizerBase
    label_names: Sequence[str]
    max_length: int

    def __call__(self, rows: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
        """Encode a batch of rows; `row` of an example is the number of the row that it was made from."""
        return {"row": rows["row"], **self.task.encodes.encode(rows, self.tokenizer, self.label_names, self.max_length)}

    def key(self, rows: Rows) -> str:
        """Return the cache key of the examples of these rows."""
        from transformers import PreTrainedTokenizerFast

        backend = ""
        if isinstance(self.tokenizer, PreTrainedTokenizerFast):
            self.tokenizer.backend_tokenizer.no_truncation()  # an earlier call may have left one set
            backend = self.tokenizer.backend_tokenizer.to_str()
        return content_key(
            FORMAT, rows.key, self.task.name, code_key(self.task.encodes), settings_key(self.task.settings, "examples"),
            json.dumps(self.label_names), str(self.max_length), backend, str(self.tokenizer.init_kwargs),
            str(self.tokenizer.chat_template),
        )  # fmt: skip


def write_examples(table: Dataset, encode: Encode, path: Path) -> None:
    """Encode rows and write the examples as an Arrow stream. Memory does not grow with the rows.

    Args:
        table: The rows, one or more.
        encode: Columns of rows → columns of examples.
        path: The file to write.

    Raises:
        ResourceError: A process was killed. Errors of `encode` are raised unchanged.
    """
    with closing(_encoded(table, encode)) as batches:  # closing it ends the processes, whatever happens
        write_tables(joined(batches), path)


def examples_in_memory(table: Dataset, encode: Encode) -> Dataset:
    """Encode rows like `write_examples`, and hold the examples in memory."""
    with closing(_encoded(table, encode)) as batches:
        return in_memory(joined(batches))


def _encoded(table: Dataset, encode: Encode) -> Generator[pa.RecordBatch]:
    """Yield the examples of at most a thousand rows at a time, in the order of the rows.

    Many rows are encoded by forked processes, one a core, since a task's own part of the work is Python. Where forking
    is not safe, the tokenizer's threads share the work.
    """

    starts = _starts(table)
    ends = dict(zip(starts, [*starts[1:], len(table)], strict=True))

    def make(start: int) -> pa.RecordBatch:
        return example_batch(encode(table[start : ends[start]]))

    processes = min(parallel.cores(), len(starts), _MOST_PROCESSES)
    if processes > 1 and len(table) >= _ROWS_WORTH_PROCESSES and parallel.can_fork():
        encode(table[:1])  # what it loads where it is first needed, such as Kiwi's model, is loaded once for all
        with closing(parallel.in_processes(make, starts, processes)) as batches:
            yield from batches
    else:
        yield from map(make, starts)


def _starts(table: Dataset) -> list[int]:
    """Return the first row of each batch of rows, whose tokens must fit into memory as Python's objects."""
    totals = np.cumsum(text_sizes(table))
    starts = list[int]()
    while (start := starts[-1] if starts else 0) < len(table):
        before = int(totals[start - 1]) if start else 0
        fitting = int(np.searchsorted(totals, before + _BYTES_AT_A_TIME, side="right"))
        starts.append(min(max(fitting, start + 1), start + _ROWS_AT_A_TIME))
    return [0, *starts[:-1]]


def usable_examples(table: Dataset, rows: Dataset) -> Examples:
    """Drop the examples without tokens, and the rows without examples.

    Args:
        table: The examples, as `encode` made them.
        rows: The rows that they were made from.

    Returns:
        The rest; it may be empty.
    """
    lengths = list_lengths(table, "input_ids")
    if not lengths.all():
        table, lengths = selected(table, np.flatnonzero(lengths)), lengths[lengths > 0]
    own, owners = numbers(rows, "row"), numbers(table, "row")
    if not np.array_equal(own, owners):  # else each row has one example
        has_any = np.isin(own, owners)
        rows = rows if has_any.all() else selected(rows, np.flatnonzero(has_any))
    return Examples(table, _padded_lengths(table, lengths), rows)


def _padded_lengths(table: Dataset, lengths: np.ndarray) -> np.ndarray:
    """Return the tokens of each example; of one with several sequences (`sizes`) those padded to the longest."""
    if "sizes" not in table.column_names:
        return lengths
    padded = [len(sizes) * max(sizes) for sizes in Cells(table, "sizes")]
    return np.array(padded, dtype=np.int32)


@dataclass
class LengthReport:
    """What `max_length` did to a source's texts: how many were cut, how many examples have no token left.

    Attributes:
        where: The source, as messages name it.
        max_length: Most tokens of an example.
        why_several: Why a row may make several examples, a sentence, or "".
        reads_whole: Whether long texts are divided into windows.
    """

    where: str
    max_length: int
    why_several: str = ""
    reads_whole: bool = False
    _rows: int = 0
    _total: int = 0
    _cut: int = 0
    _divided: int = 0
    _windows: int = 0
    _dropped_rows: list[np.ndarray] = field(default_factory=list)
    _full_lengths: list[np.ndarray] = field(default_factory=list)
    _refused: dict[str, list[int]] = field(default_factory=dict)

    def add(self, table: Dataset) -> None:
        """Count the examples of a table."""
        lengths = list_lengths(table, "input_ids")
        self._total += len(table)
        rows = numbers(table, "row")
        self._cut += len(np.unique(rows[numbers(table, "truncated").astype(bool)]))  # not the examples of a row
        if self.reads_whole:
            windows = list_lengths(table, "sizes")
            self._divided += int((windows > 1).sum())
            self._windows += int(windows[windows > 1].sum())
        self._rows += 1 + int(np.count_nonzero(np.diff(rows))) if len(rows) else 0
        is_refused = np.zeros(len(table), dtype=bool)
        if "refused" in table.column_names and counted(table, "refused").keys() - {""}:
            reasons = table["refused"][:]
            is_refused = np.array([bool(reason) for reason in reasons])
            for place in np.flatnonzero(is_refused):
                self._refused.setdefault(reasons[place], []).append(int(rows[place]))
        self._dropped_rows.append(rows[(lengths == 0) & ~is_refused])
        if "full_length" in table.column_names:
            self._full_lengths.append(numbers(table, "full_length").astype(np.int32))

    def log(self) -> None:
        """Log how many texts were cut and how many examples were dropped, with all lengths if more than 1% were."""
        if self.why_several and self._total > self._rows:
            _log.info(
                "%s: %s행으로 예제 %s개를 만들었습니다. %s",
                self.where, f"{self._rows:,}", f"{self._total:,}", self.why_several,
            )  # fmt: skip
        if self._divided:
            _log.info(
                "%s: %s 토큰보다 긴 텍스트 %s개(%.1f%%)를 구간 %s개로 나누어 끝까지 읽습니다.",
                self.where, f"{self.max_length:,}", f"{self._divided:,}", 100 * self._divided / self._rows,
                f"{self._windows:,}",
            )  # fmt: skip
        if self._refused:
            _log.warning("%s: 다음 행을 건너뜁니다. %s", self.where, self._refused_as_text())
        if self._cut:
            _log.info(
                "%s: 텍스트 %s개(%.1f%%)가 %s 토큰을 넘어 잘렸습니다.",
                self.where, f"{self._cut:,}", 100 * self._cut / self._rows, f"{self.max_length:,}",
            )  # fmt: skip
        rows = np.concatenate(self._dropped_rows) if self._dropped_rows else np.empty(0, dtype=np.int64)
        if not len(rows):
            return
        shown = ", ".join(map(str, rows[:_SHOWN])) + ("번째 등" if len(rows) > _SHOWN else "번째")
        _log.warning(
            "%s: 학습할 토큰이 max_length를 넘어 모두 잘린 %s행(%s)을 제외합니다.", self.where, f"{len(rows):,}", shown
        )
        if len(rows) > _MUCH_DROPPED * self._total and self._full_lengths:
            quantiles = np.percentile(np.concatenate(self._full_lengths), (50, 90, 99, 100)).astype(int)
            _log.warning(
                "전체의 %.1f%%가 제외됩니다. 토큰 길이는 50%% %s, 90%% %s, 99%% %s, 최대 %s입니다. "
                "data.max_length(지금 %s)를 늘리세요.",
                100 * len(rows) / self._total, *(f"{value:,}" for value in quantiles), f"{self.max_length:,}",
            )  # fmt: skip

    def check(self, tolerated: float = 1.0) -> None:
        """Check that some example has a token left, and that not too many rows were refused.

        Args:
            tolerated: Largest share of rows that may be refused, 0 to 1.

        Raises:
            DataError: No example has a token, or more rows were refused.
        """
        refused = sum(map(len, self._refused.values()))
        if refused > tolerated * self._total or refused == self._total:
            raise DataError(
                f"모델의 chat template에 맞지 않는 행이 너무 많습니다. {self._refused_as_text()}",
                where=self.where,
                remedy="데이터를 그 template에 맞게 고치거나 text_generation.chat_template에 다른 파일을 지정하세요. "
                f"그 행들을 제외하고 계속하려면 data.max_bad_rows(지금 {tolerated:g})를 늘리세요.",
            )
        if refused + sum(map(len, self._dropped_rows)) == self._total:
            raise DataError(
                "학습할 토큰이 남은 예제가 없습니다.", where=self.where, remedy="data.max_length를 늘리세요."
            )

    def _refused_as_text(self) -> str:
        return "; ".join(
            f"{reason} {len(rows):,}행({', '.join(map(str, rows[:_SHOWN]))}번째{' 등' if len(rows) > _SHOWN else ''})"
            for reason, rows in self._refused.items()
        )
