"""Rows of an evaluation as a person looks at them: a few on the page, and all wrong ones in errors.csv."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetuning.data.originals import originals
from finetuning.data.rows import Rows
from finetuning.data.table import rows_at
from finetuning.files import discard
from finetuning.reporting.predictions import as_cell_without_formula, beside, write_records
from finetuning.tasks.base import Task
from finetuning.tasks.evidence import Case, Evidence

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

MOST_SHOWN = 200


@dataclass(frozen=True)
class Said:
    """A split and what a model said about it.

    Attributes:
        task: The task.
        split: The split, with its source.
        rows: Its clean rows that have examples, in the order of the predictions.
        predictions: One of each row.
        label_names: Label names in the order of their ids.
        tokenizer: The model's tokenizer.
    """

    task: Task
    split: Rows
    rows: Dataset
    predictions: Sequence[Any]
    label_names: Sequence[str]
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True)
class RankedCase:
    """A row of a ranking.

    Attributes:
        row: Its number in the source.
        value: The value that rows are sorted by.
        is_wrong: Whether its prediction is wrong.
        case: The row as it is shown.
    """

    row: int
    value: float
    is_wrong: bool
    case: Case


def ranked_cases(said: Said, evidence: Evidence) -> tuple[RankedCase, ...]:
    """Return the first rows of an evaluation's ranking, at most 200."""
    ranking = evidence.ranking
    if ranking is None:
        return ()
    places = ranking.positions[:MOST_SHOWN].tolist()
    return tuple(
        RankedCase(
            row["row"],
            float(ranking.values[number]),
            number < ranking.wrong,
            said.task.shows.case(said.predictions[place], row, said.label_names, said.tokenizer),
        )
        for number, (place, row) in enumerate(zip(places, rows_at(said.rows, places), strict=True))
    )


def write_errors(path: Path, said: Said, evidence: Evidence) -> int:
    """Write every wrong row as CSV for Excel: all columns of the source, then the prediction; the worst first.

    A cell that a spreadsheet would run as a formula begins with an apostrophe. Where the source has changed since the
    run began, the columns are those that the task read.

    Args:
        path: The file. Where no row is wrong it is removed.
        said: The split and its predictions.
        evidence: The evidence of the same predictions.

    Returns:
        The number of wrong rows.

    Raises:
        ResourceError: The disk is full or cannot be written.
    """
    ranking = evidence.ranking
    if ranking is None or ranking.wrong == 0:
        discard(path)  # one of an earlier evaluation
        return 0
    return write_records(path, _wrong(said, ranking.positions[: ranking.wrong].tolist()), as_cell_without_formula)


def _wrong(said: Said, places: Sequence[int]) -> Iterator[Mapping[str, Any]]:
    read = originals(said.split, said.rows, places)
    shows = said.task.shows
    for number, (place, row) in enumerate(zip(places, rows_at(said.rows, places), strict=True)):
        found = shows.mistake(said.predictions[place], row, said.label_names, said.tokenizer)
        original = row if read is None else read[number]
        cells = {name: None if cell != cell else cell for name, cell in original.items()}  # NaN is no JSON
        yield beside({"row": row["row"], **cells}, found)
