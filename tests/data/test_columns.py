"""Columns of tables on the disk: reading in batches gives the same values, also in tables with selected rows."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from datasets import Dataset, concatenate_datasets

from finetuning.data.table import Cells, coded, counted, list_lengths, numbers

WORDS = ["나", "가", "", "다", "가", "나", "가"] * 9


@pytest.fixture(params=["whole", "chosen"])
def table(request: pytest.FixtureRequest) -> Dataset:
    """In batches of five, so that kinds come first in one or another; of those chosen some batches have no row."""
    parts = [
        Dataset.from_dict({"row": range(start, start + 5), "word": words, "long": [len(word) > 0 for word in words]})
        for start in range(0, 60, 5)
        for words in [WORDS[start : start + 5]]
    ]
    made = concatenate_datasets(parts)
    return made if request.param == "whole" else made.select([*range(3, 40, 3), 50, 51])


def test_a_column_is_counted_and_coded_as_a_list_would_be(table: Dataset) -> None:
    words = table["word"][:]
    assert list(counted(table, "word").items()) == list(Counter(words).items())
    codes, names = coded(table, "word")
    assert names == sorted(set(words)) and [names[code] for code in codes] == words
    assert numbers(table, "row").tolist() == table["row"][:]
    assert numbers(table, "long").tolist() == table["long"][:]


def test_cells_are_those_of_the_column(table: Dataset) -> None:
    cells = Cells(table, "word")
    assert list(cells) == table["word"][:] == cells[:]
    assert (len(cells), cells[1], cells[-1]) == (len(table), table[1]["word"], table[-1]["word"])


def test_lengths_are_read_over_the_file_s_batches() -> None:
    parts = [Dataset.from_dict({"input_ids": [[1] * n for n in part]}) for part in ((3, 0), (5,), (1, 2, 0))]
    lengths = list_lengths(concatenate_datasets(parts), "input_ids")
    assert lengths.tolist() == [3, 0, 5, 1, 2, 0] and lengths.dtype == np.int32
