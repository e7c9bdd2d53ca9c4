"""Scores are those of KLUE-baseline's functions (8a03c94) on the same predictions, recorded in klue_scores.json.

Entities, parsed sentences, states of dialogues and relations are compared in the tests of their tasks.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetuning.config.schema import Settings
from finetuning.tasks.answering.scoring import Found
from finetuning.tasks.registry import find_task

KEPT = json.loads((Path(__file__).parent / "klue_scores.json").read_text(encoding="utf-8"))


def metrics_of(task: str, predictions: list[Any], rows: dict[str, list[str]], names: list[str]) -> dict[str, float]:
    scores = find_task(Settings.model_validate({"model": {"task": task}})).scores
    return scores.metrics(predictions, rows, names, 0.0)


def test_topics_and_inference() -> None:
    kept, names = KEPT["ynat"], [str(label) for label in range(7)]
    said = [np.eye(7)[label] for label in kept["said"]]
    found = metrics_of("text-classification", said, {"label": [str(label) for label in kept["truth"]]}, names)
    assert found["macro_f1"] == pytest.approx(kept["macro_f1"], abs=1e-12)
    assert found["accuracy"] == pytest.approx(kept["accuracy"], abs=1e-12)


def test_similarity() -> None:
    kept = KEPT["sts"]
    found = metrics_of("text-regression", kept["said"], {"label": [str(score) for score in kept["truth"]]}, [])
    assert found["pearson"] == pytest.approx(kept["pearson"], abs=1e-12)
    assert found["f1_at_3"] == pytest.approx(kept["f1"], abs=1e-12)


def test_machine_reading() -> None:
    kept = KEPT["mrc"]
    said = [Found(answer, 0, len(answer), 0.0, 0.0) for answer, _ in kept["pairs"]]
    golds = [json.dumps([{"text": text, "answer_start": 0} for text in texts]) for _, texts in kept["pairs"]]
    found = metrics_of("question-answering", said, {"answers": golds}, [])
    assert found["klue_exact_match"] == pytest.approx(kept["em"], abs=1e-10)
    assert found["rouge_w"] == pytest.approx(kept["rouge_w"], abs=1e-10)
