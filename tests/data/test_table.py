"""Rows selected from a table by their positions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from finetuning.data.arrow import row_tables, write_tables
from finetuning.data.table import numbers, selected

TABLE = Dataset.from_dict({"row": list(range(40)), "text": [f"글 {number}" for number in range(40)]})
PLACES = st.lists(st.integers(0, 19), max_size=25)


@given(PLACES, st.booleans())
def test_selected_rows_are_those_that_datasets_selects(places: list[int], is_selection: bool) -> None:
    table = selected(TABLE, np.arange(1, 40, 2)) if is_selection else TABLE
    expected = (TABLE.select(range(1, 40, 2)) if is_selection else TABLE).select(places)
    found = selected(table, np.array(places, dtype=np.int64))
    assert len(found) == len(places) and found.column_names == TABLE.column_names
    assert found[:] == expected[:]
    again = selected(found, np.flatnonzero(np.array(places, dtype=np.int64) % 2 == 0))
    assert again["row"][:] == [row for row, place in zip(expected["row"], places, strict=True) if place % 2 == 0]


@given(st.lists(st.booleans(), min_size=40, max_size=40))
def test_columns_of_a_selection_are_read_in_its_order(kept: list[bool]) -> None:
    found = selected(TABLE, np.flatnonzero(kept))
    assert numbers(found, "row").tolist() == np.flatnonzero(kept).tolist()


def test_a_column_is_added_to_each_of_several_selections(tmp_path: Path) -> None:
    """`datasets` keeps files of what it makes of a table on the disk, and must find none of other rows."""
    path = tmp_path / "rows.arrow"
    write_tables(row_tables(iter([{"row": number, "text": "글"} for number in range(10)]), []), path)
    table = Dataset.from_file(str(path))
    for places in ([5, 1], [2, 8, 3], [7]):
        found = selected(table, np.array(places)).add_column("twice", [2 * place for place in places])
        assert found["row"][:] == places and found["twice"][:] == [2 * place for place in places]
    assert selected(selected(table, np.array([4, 2, 9])), np.array([2, 0]))["row"][:] == [9, 4]
