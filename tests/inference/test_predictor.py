"""Predictions in memory: those of a whole pass, in order, a bounded number of rows at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from data_manager import DataManager
from exceptions import DataError
from finetuning.config.schema import Settings
from finetuning.data import arrow, prepared
from finetuning.device.runtime import Runtime
from finetuning.inference.evaluator import Evaluator
from finetuning.inference.predictor import Predictor
from finetuning.tasks.registry import find_task

TEXTS = [
    "정말 재미있다",
    "너무 지루하다",
    "",
    "최고의 영화다 " * 9,
    "또 보고 싶다",
    "   ",
    "연기가 형편없다",
    "돈이 아깝다",
]


@pytest.fixture
def evaluator(tiny_model: Path, tmp_path: Path) -> Evaluator:
    """A classifier of random weights; its data go to a cache in tmp_path."""
    from accelerate import Accelerator
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from memory_utils import MemoryManager

    settings = Settings.model_validate(
        {"data": {"dataset_cache_dir": str(tmp_path / "cache"), "batch_size": 4}, "memory": {"mixed_precision": False}}
    )
    task = find_task(settings)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=2)
    runtime = Runtime(Accelerator(cpu=True))
    memory = MemoryManager(settings, runtime.device, 32)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    return Evaluator(task, model, tokenizer, ("부정", "긍정"), 32, runtime, memory, lambda: None)


def predictions(evaluator: Evaluator, texts: list[str]) -> list[dict[str, Any]]:
    data = DataManager(evaluator.task.settings, evaluator.task)
    return list(Predictor(evaluator).predict(data.load_unlabelled(None, [f"{text}\n" for text in texts])))


def test_predictions_are_those_of_rows_with_labels(evaluator: Evaluator, tmp_path: Path) -> None:
    texts = [text for text in TEXTS if text.strip()]
    (tmp_path / "rows.csv").write_text("text,label\n" + "".join(f"{text},긍정\n" for text in texts), encoding="utf-8")
    data = DataManager(evaluator.task.settings, evaluator.task)
    examples = data.encode(data.load_file(tmp_path / "rows.csv"), evaluator.tokenizer, ("부정", "긍정"), 32)
    scored = evaluator.evaluate(examples, 0, 0)
    found = predictions(evaluator, texts)
    assert [record["text"] for record in found] == texts
    for record, prediction, row in zip(found, scored.predictions, examples.rows, strict=True):
        shown = evaluator.task.shows.readable(prediction, row, evaluator.label_names, evaluator.tokenizer)
        assert record["label"] == shown["label"] and record["score"] == pytest.approx(shown["score"], abs=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_chunks_change_neither_order_nor_predictions(
    evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    texts = TEXTS * 3
    whole = predictions(evaluator, texts)
    assert [set(record) for record in whole[:3]] == [{"text", "label", "score"}, {"text", "label", "score"}, {"text"}]
    monkeypatch.setattr(arrow, "_ROWS_AT_A_TIME", size)
    found = predictions(evaluator, texts)
    assert [record["text"] for record in found] == texts
    assert [record.get("label") for record in found] == [record.get("label") for record in whole]
    assert [record.get("score", 0) for record in found] == pytest.approx([record.get("score", 0) for record in whole])


def test_nothing_is_written_to_the_cache(evaluator: Evaluator, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    predictions(evaluator, TEXTS * 2000)  # enough that processes encode
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("characters", "expected"), [(1 << 26, 10_000), (5_000, 1_000)])
def test_rows_are_read_no_further_than_a_chunk(
    monkeypatch: pytest.MonkeyPatch, evaluator: Evaluator, characters: int, expected: int
) -> None:
    monkeypatch.setattr(arrow, "_CHARACTERS_AT_A_TIME", characters)
    read: list[int] = []

    class Endless:
        def __iter__(self) -> Iterator[dict[str, str]]:
            for number in itertools.count(1):
                read.append(number)
                yield {"text": "글자다섯개"}

    data = DataManager(evaluator.task.settings, evaluator.task)
    source = data.load_unlabelled(None, ["글\n"])
    endless = prepared.Unlabelled(prepared.Raw("끝없이", ("text",), Endless(), ""), source.cleaner)
    rows, originals = next(endless.chunks())
    assert (len(read), len(rows), len(originals)) == (expected, expected, expected)


def test_no_rows_are_an_error_and_rows_without_text_are_not(evaluator: Evaluator) -> None:
    with pytest.raises(DataError, match="비어 있습니다"):
        predictions(evaluator, [])
    assert predictions(evaluator, ["", " "]) == [{"text": ""}, {"text": " "}]
