"""Queries with passages, and how a task reads and encodes them."""

from __future__ import annotations

from typing import Any

from finetuning.config.schema import Settings
from finetuning.data.cleaning import Cleaner
from finetuning.data.columns import find_columns
from finetuning.data.findings import Findings
from finetuning.data.sources import Raw
from finetuning.tasks.registry import find_task

LISTS = [
    {"query": "정말 재미있다", "pos": ["최고의 영화다"], "neg": ["너무 지루하다", "시간이 아깝다"]},
    {"query": "지루하다", "pos": ["너무 지루하다", "졸았다"], "neg": ["최고다"]},
    {"query": "연기가 훌륭하다", "pos": ["배우가 좋다"], "neg": ["음악", "또 보고 싶다 최고의 영화다 정말", "글쎄"]},
    {"query": "또", "pos": ["또 보고 싶다"], "neg": ["다시는 보지 않는다"]},
]
TEACHER = [([4.0], [-2.5, 0.5]), ([3.0, 2.0], [-4.0]), ([1.5], [0.0, -1.0, -3.5]), ([0.5], [1.0])]
PAIRS = [
    {"질문": row["query"], "문서": text, "정답": mark}
    for row in LISTS
    for mark, texts in ((1, row["pos"]), (0, row["neg"]))
    for text in texts
]


def taught() -> list[dict[str, Any]]:
    """LISTS with a teacher's scores, in the shape of BGE's files."""
    return [{**row, "pos_scores": good, "neg_scores": bad} for row, (good, bad) in zip(LISTS, TEACHER, strict=True)]


def task_of(name: str = "reranker", **options: Any) -> Any:
    """A task under settings of `reranker`."""
    return find_task(Settings.model_validate({"model": {"task": name}, "reranker": options}))


def cleaned(task: Any, rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], Findings]:
    """The clean rows of a source, and what cleaning found."""
    raw = Raw("a.jsonl", tuple(rows[0]), rows, "")
    columns = task.reads.columns(raw.columns)
    findings = Findings()
    cleaner = Cleaner.to_train(task, task.settings.data, columns, find_columns(columns, raw), None)
    return list(cleaner.clean(raw.rows, findings)), findings


def by_column(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Rows as columns."""
    return {name: [row[name] for row in rows] for name in rows[0]}


def examples_of(task: Any, tokenizer: Any, rows: list[dict[str, Any]], max_length: int = 64) -> list[dict[str, Any]]:
    """The examples of a source's rows."""
    columns = by_column(cleaned(task, rows)[0])
    made = {"row": columns["row"], **task.encodes.encode(columns, tokenizer, (), max_length)}
    return [dict(zip(made, values, strict=True)) for values in zip(*made.values(), strict=True)]
