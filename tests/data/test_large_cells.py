"""A whole corpus in one line or one cell: named with its file and row, in a bounded memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from exceptions import DataError
from finetuning.data.arrow import chunks
from finetuning.data.formats.registry import open_source
from tests.support.paths import ROOT

READ = """
import resource, sys
from pathlib import Path
from exceptions import DataError
from finetuning.data.formats.registry import open_source
import charset_normalizer
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (400 << 20), resource.RLIM_INFINITY))
try:
    print(sum(1 for _ in open_source(Path(sys.argv[1]), None).rows))
except DataError as error:
    print(error)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is limited as Linux does")
@pytest.mark.parametrize(("name", "begins", "line"), [
    ("a.csv", "text,label\n정말 좋다,1\n", 3), ("a.csv", 'text,label\n정말 좋다,1\n"', 3),
    ("a.jsonl", '{"text": "정말 좋다"}\n{"text": "', 2), ("a.txt", "정말 좋다\n", 2), ("a.tsv", "a\tb\n1\t", 2),
])  # fmt: skip
def test_a_line_larger_than_memory_is_named(tmp_path: Path, name: str, begins: str, line: int) -> None:
    path = tmp_path / name
    path.write_text(begins, encoding="utf-8")
    os.truncate(path, 900 << 20)  # a hole, which takes no room on the disk
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"{path}, {line}번째 줄" in done.stdout and "자를 넘습니다" in done.stdout


@pytest.mark.parametrize("nested", [False, True])
def test_a_large_cell_of_parquet_is_named(tmp_path: Path, nested: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    texts = ["정말 좋다"] * 30 + ["가" * 1000] + ["너무 싫다"] * 5
    pq.write_table(pa.table({"id": range(36), "글": [[text] for text in texts] if nested else texts}), path)
    monkeypatch.setattr("finetuning.data.formats.parquet._LARGEST_CELL", 3100)
    assert len(list(open_source(path, None).rows)) == 36
    for most_rows in (10_000, 7, 1):
        monkeypatch.setattr("finetuning.data.formats.parquet._MOST_ROWS", most_rows)
        monkeypatch.setattr("finetuning.data.formats.parquet._LARGEST_CELL", 2900)
        with pytest.raises(DataError) as error:
            list(open_source(path, None).rows)
        assert "31번째 행, '글' 열" in error.value.where and str(path) in error.value.where


def test_large_rows_of_parquet_are_read_a_few_at_a_time(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from finetuning.data.formats.parquet import _rows_at_a_time

    path = tmp_path / "a.parquet"
    for text, rows in (("x" * 10, 10_000), ("x" * (1 << 20), 64)):
        table = pa.table({"text": [text + str(number) for number in range(80)]})
        pq.write_table(table, path, use_dictionary=False)
        assert abs(_rows_at_a_time(pq.read_metadata(path)) - rows) <= 1


def test_large_rows_are_handed_on_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetuning.data.arrow._CHARACTERS_AT_A_TIME", 100)
    rows = [{"row": number, "text": "가" * size} for number, size in enumerate((10, 10, 90, 200, 1))]
    found = list(chunks(iter(rows)))
    assert [len(chunk) for chunk in found] == [3, 1, 1]
    assert [row for chunk in found for row in chunk] == rows


@pytest.mark.parametrize("selected", [False, True])
def test_rows_are_encoded_a_few_at_a_time_where_they_are_large(monkeypatch: pytest.MonkeyPatch, selected: bool) -> None:
    from datasets import Dataset

    from finetuning.data import tokenizing

    monkeypatch.setattr(tokenizing, "_BYTES_AT_A_TIME", 90)
    monkeypatch.setattr(tokenizing, "_ROWS_AT_A_TIME", 4)
    sizes = [10, 10, 9, 1, 200, 0, 0, 0, 0, 0, 30, 1]  # of Hangul, three bytes each
    table = Dataset.from_dict({"row": range(12), "text": ["가" * size for size in sizes], "label": ["a"] * 12})
    table = table.select([0, 4, 5, 10, 11]) if selected else table
    seen: list[list[int]] = []

    def encode(rows: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
        seen.append(list(rows["row"]))
        return {"row": rows["row"], "input_ids": [[1]] * len(rows["row"])}

    found = tokenizing.examples_in_memory(table, encode)
    assert found["row"][:] == table["row"][:]
    assert seen == ([[0], [4], [5], [10], [11]] if selected else [[0, 1, 2], [3], [4], [5, 6, 7, 8], [9], [10], [11]])
