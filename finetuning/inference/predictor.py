"""Predict rows without labels, in memory: the rows are never written to the disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from finetuning.data.prepared import Unlabelled
from finetuning.data.tokenizing import Encoder, LengthReport, examples_in_memory, usable_examples
from finetuning.inference.evaluator import Evaluator
from finetuning.reporting.predictions import Said, beside


@dataclass(frozen=True)
class Predictor:
    """Predicts rows with a saved model.

    Attributes:
        evaluator: Holds the model.
        said: Counts what it predicts.
    """

    evaluator: Evaluator
    said: Said = field(default_factory=Said)

    def predict(self, source: Unlabelled) -> Iterator[dict[str, Any]]:
        """Predict the rows of a source, a chunk at a time, so that memory does not grow with their number.

        Args:
            source: The rows; they are cleaned and encoded as in training.

        Yields:
            Each row as it is in the source, with its prediction, in the source's order. A row without text has none.

        Raises:
            DataError: No row has a token left within max_length.
        """
        evaluator = self.evaluator
        for record, row, outcome in self.outcomes(source):
            if row is None:
                yield record
                continue
            found = evaluator.task.shows.readable(outcome, row, evaluator.label_names, evaluator.tokenizer)
            self.said.count(evaluator.task.shows.labels_said(found))
            yield beside(record, found)

    def outcomes(self, source: Unlabelled) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None, Any]]:
        """Predict the rows of a source like `predict`.

        Args:
            source: The rows.

        Yields:
            Each row as it is in the source, the clean row, and what the task predicts for it; the latter two are None
            for a row without text.

        Raises:
            DataError: No row has a token left within max_length.
        """
        evaluator = self.evaluator
        encoder = Encoder(evaluator.task, evaluator.tokenizer, evaluator.label_names, evaluator.max_length)
        report, first, has_rows = LengthReport(source.raw.where, evaluator.max_length), 1, False
        report.reads_whole = evaluator.task.encodes.reads_whole
        for rows, records in source.chunks():
            found: dict[int, tuple[dict[str, Any], Any]] = {}
            if len(rows):
                has_rows = True
                table = examples_in_memory(rows.table, encoder)
                report.add(table)
                examples = usable_examples(table, rows.table)
                predictions = evaluator.predict(examples) if len(examples) else []
                for row, outcome in zip(examples.rows, predictions, strict=True):
                    found[row["row"] - first] = (row, outcome)
            self.said.rows += len(records)
            for place, record in enumerate(records):
                yield (record, *found.get(place, (None, None)))
            first += len(records)
        report.log()
        if has_rows:
            report.check()
