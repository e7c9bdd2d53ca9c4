"""Rows of text, encoded by a task."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from finetuning.data.rows import Rows

TEXTS = {"row": [1, 2, 3], "text": ["정말 재미있다", "너무 지루하다 ㅋㅋ", "또 보고 싶다 최고의 영화다"]}


def examples_of(task: Any, tokenizer: Any, rows: dict[str, list[Any]], labels: list[str]) -> list[dict[str, Any]]:
    columns = {"row": rows["row"], **task.encodes.encode(rows, tokenizer, labels, 64)}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def rows_of_table(columns: dict[str, list[Any]], where: str = "a.csv") -> Rows:
    """Clean rows in memory."""
    return Rows(where, Dataset.from_dict(columns), key=where)
