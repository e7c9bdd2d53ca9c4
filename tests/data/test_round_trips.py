"""Real files as people save them again: every encoding and format gives the very same examples."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_manager import DataManager
from finetuning.config.schema import Settings
from finetuning.data.formats.registry import open_source
from finetuning.tasks.registry import find_task

ROWS = 1000
Table = list[dict[str, Any]]
Write = Callable[[Path, Table], Path]

SETS = {
    "nsmc": ("nsmc/ratings_test.txt", "text-classification", {"text_column": "document"}),
    "korsts": ("korsts/sts-dev.tsv", "text-regression",
               {"text_column": "sentence1", "text_pair_column": "sentence2", "label_column": "score"}),
    "chatbot": ("chatbot/ChatbotData.csv", "text-generation", {"prompt_column": "Q", "response_column": "A"}),
}  # fmt: skip


def as_csv(rows: Table) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def csv_in(encoding: str) -> Write:
    def write(path: Path, rows: Table) -> Path:
        path = path.with_suffix(".csv")
        path.write_bytes(as_csv(rows).encode(encoding))
        return path

    return write


def decomposed(path: Path, rows: Table) -> Path:
    path = path.with_suffix(".csv")
    path.write_bytes(unicodedata.normalize("NFD", as_csv(rows)).encode())
    return path


def excel(path: Path, rows: Table) -> Path:
    from openpyxl import Workbook

    book = Workbook(write_only=True)
    sheet = book.create_sheet()
    sheet.append(list(rows[0]))
    for row in rows:  # labels as Excel has them: numbers
        sheet.append([float(cell) if name in {"label", "score"} else cell for name, cell in row.items()])
    book.save(path.with_suffix(".xlsx"))
    return path.with_suffix(".xlsx")


WAYS: dict[str, Write] = {
    "cp949": csv_in("cp949"), "utf-16": csv_in("utf-16"), "utf-8 with bom": csv_in("utf-8-sig"), "nfd": decomposed,
    "xlsx": excel,
}  # fmt: skip


def examples_of(path: Path, task: str, columns: dict[str, str], model: Path) -> list[dict[str, Any]]:
    """Return the examples of every split of a file."""
    from transformers import AutoTokenizer

    data = {"dataset_name": str(path), "dataset_cache_dir": str(path.parent / "cache"), "max_bad_rows": 1.0, **columns}
    settings = Settings.model_validate({"model": {"task": task}, "data": data})
    manager = DataManager(settings, find_task(settings))
    tokenizer = AutoTokenizer.from_pretrained(model)
    manager.task.encodes.fit_tokenizer(tokenizer)
    splits = manager.load_splits()
    labels = manager.label_names(splits)
    return [row for rows in splits.values() for row in manager.encode(rows, tokenizer, labels, 256).table]


@pytest.mark.parametrize("name", SETS)
def test_a_file_saved_in_any_way_gives_the_same_examples(
    real_data: Path, tiny_causal: Path, tmp_path: Path, name: str
) -> None:
    published, task, columns = SETS[name]
    found = [dict(row) for row, _ in zip(open_source(real_data / published, None).rows, range(ROWS), strict=False)]
    lost = [number for number, row in enumerate(found, 1) if not _in_cp949(row)]
    rows = [row for row in found if _in_cp949(row)]
    assert len(lost) < 0.05 * len(found), f"CP949 cannot hold these rows of {published}: {lost}"
    original = examples_of(csv_in("utf-8")(tmp_path / "original", rows), task, columns, tiny_causal)
    assert len(original) >= len(rows) - 5
    for way, write in WAYS.items():
        path = write(tmp_path / way.replace(" ", "-"), rows)
        assert examples_of(path, task, columns, tiny_causal) == original, way


def _in_cp949(row: dict[str, Any]) -> bool:
    try:
        "".join(row.values()).encode("cp949")
    except UnicodeEncodeError:
        return False
    return True
