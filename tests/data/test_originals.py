"""Rows as they are in their source: every column, by number; nothing where the source is another one by now."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetuning.config.schema import DataSettings
from finetuning.data.arrow import in_memory, row_tables
from finetuning.data.originals import originals
from finetuning.data.rows import Part, Rows
from finetuning.data.sources import raw_file


def split_of(path: Path, first: int = 0) -> Rows:
    """The rows of a file whose texts cleaning has brought to one spelling; every third was held out."""
    rows = [{"row": n, "text": f"글 {n + first}", "label": "가"} for n in range(1, 31) if n % 3]
    table = in_memory(row_tables(iter(rows), ["text", "label"]))
    return Rows(str(path), table, "key", {"text": "본문", "label": "라벨"}, raw=raw_file(path, DataSettings()))


def write(path: Path, text: str, first: int = 0) -> Path:
    lines = [f"{n + first},{text} {n + first}\u200b,가,{n}원" for n in range(1, 31)]
    path.write_text("\n".join(["번호,본문,라벨,값", *lines]), encoding="utf-8")
    return path


def test_rows_come_back_with_every_column_in_the_order_that_was_asked_for(tmp_path: Path) -> None:
    split = split_of(write(tmp_path / "a.csv", "글"))
    found = originals(split, split.table, [5, 0, 19])
    numbers = [split.table[place]["row"] for place in (5, 0, 19)]
    assert found == [{"번호": str(n), "본문": f"글 {n}\u200b", "라벨": "가", "값": f"{n}원"} for n in numbers]


@pytest.mark.parametrize("change", ["removed", "other texts", "shorter"])
def test_a_source_that_has_changed_is_not_taken_for_the_same(tmp_path: Path, change: str) -> None:
    path = write(tmp_path / "a.csv", "글")
    split = split_of(path)
    if change == "removed":
        path.unlink()
    elif change == "other texts":
        write(path, "다른 글")
    else:
        path.write_text("번호,본문,라벨,값\n1,글 1,가,1원\n", encoding="utf-8")
    assert originals(split, split.table, list(range(len(split)))) is None


def test_the_rows_of_a_mixture_come_from_their_own_files(tmp_path: Path) -> None:
    from datasets import concatenate_datasets

    parts = [split_of(write(tmp_path / f"{first}.csv", "글", first), first) for first in (0, 100)]
    shifted = parts[1].table.map(lambda row: {"row": row["row"] + 29}, keep_in_memory=True)
    table = concatenate_datasets([parts[0].table, shifted])
    named = tuple(Part(rows.where, rows, 1.0, first) for rows, first in zip(parts, (0, 29), strict=True))
    mixture = Rows("mix", table, "key", parts[0].columns, parts=named)
    found = originals(mixture, table, [0, 20, 39])
    assert found is not None and [row["번호"] for row in found] == ["1", "101", "129"]
