"""Rows of text: encoded by a task, and read from files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Dataset

from data_manager import DataManager
from finetuning.config.schema import Settings
from finetuning.data.rows import Rows
from finetuning.tasks.registry import find_task

Make = Callable[..., DataManager]

TEXTS = {"row": [1, 2, 3], "text": ["정말 재미있다", "너무 지루하다 ㅋㅋ", "또 보고 싶다 최고의 영화다"]}


def examples_of(task: Any, tokenizer: Any, rows: dict[str, list[Any]], labels: list[str]) -> list[dict[str, Any]]:
    columns = {"row": rows["row"], **task.encodes.encode(rows, tokenizer, labels, 64)}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def rows_of_table(columns: dict[str, list[Any]], where: str = "a.csv") -> Rows:
    """Clean rows in memory."""
    return Rows(where, Dataset.from_dict(columns), key=where)


def managers_of(tmp_path: Path) -> Make:
    """Return a maker of a DataManager over files given by name; `task` and settings of `data` by keyword."""

    def make(files: dict[str, str], task: str = "text-classification", **data: Any) -> DataManager:
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8", newline="")
        data = {"dataset_name": str(folder), "dataset_cache_dir": str(tmp_path / "cache"), **data}
        settings = Settings.model_validate({"model": {"task": task}, "data": data})
        return DataManager(settings, find_task(settings))

    return make
