"""The score of drawn rows, counted once for a bootstrap, is the task's own metric of these rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from finetuning.config.schema import Settings
from finetuning.tasks.answering.scoring import Found
from finetuning.tasks.embedding.retrieval import metrics_of, search
from finetuning.tasks.embedding.scoring import Embedded
from finetuning.tasks.registry import find_task
from finetuning.tasks.tagging.decoding import TaggedToken

ROWS = 12
NAMES = ("가", "나", "다")
TAGS = ("O", "B-LC", "I-LC", "B-PS", "I-PS")
TEXT = "김영희는 서울에 산다"
SPANS = ((0, 3, "PS"), (5, 7, "LC"))
Data = tuple[list[Any], dict[str, Sequence[Any]], Sequence[str]]


def labels(draw: np.random.Generator) -> Data:
    return list(draw.dirichlet((1, 1, 1), ROWS)), {"label": list(draw.choice(NAMES, ROWS))}, NAMES


def label_sets(draw: np.random.Generator) -> Data:
    cells = [json.dumps([name for name in NAMES if draw.random() < 0.4]) for _ in range(ROWS)]
    return list(draw.random((ROWS, 3))), {"label": cells}, NAMES


def scores(draw: np.random.Generator) -> Data:
    return list(draw.random(ROWS)), {"label": [f"{value:.3f}" for value in draw.random(ROWS)]}, ()


def entities(draw: np.random.Generator) -> Data:
    def tagged(start: int, end: int, tag: str) -> TaggedToken:
        return TaggedToken(start, end, TAGS.index(tag), 0.9, TAGS.index(tag))

    said = [[tagged(start, end, f"B-{draw.choice(['LC', 'PS'])}") for start, end, _ in SPANS if draw.random() < 0.7]
            for _ in range(ROWS)]  # fmt: skip
    truth = [json.dumps([span for span in SPANS if draw.random() < 0.7]) for _ in range(ROWS)]
    return list(said), {"text": [TEXT] * ROWS, "label": truth}, TAGS


def answers(draw: np.random.Generator) -> Data:
    said: list[Any] = [Found(text, 0, len(text), 0.0, -1.0) for text in draw.choice(["", "서울", "서울시"], ROWS)]
    gold = [json.dumps([{"text": "서울", "answer_start": 0}] if draw.random() < 0.7 else []) for _ in range(ROWS)]
    return said, {"answers": gold}, ()


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("text-classification", labels),
        ("multi-label-classification", label_sets),
        ("text-regression", scores),
        ("token-classification", entities),
        ("question-answering", answers),
    ],
)
def test_the_score_of_drawn_rows_is_their_metric(name: str, make: Callable[[np.random.Generator], Data]) -> None:
    task, draw = find_task(Settings.model_validate({"model": {"task": name}})), np.random.default_rng(0)
    predictions, rows, label_names = make(draw)
    drawn_score = task.scores.drawn_score(predictions, rows, label_names)
    assert drawn_score is not None
    for _ in range(20):
        places = draw.integers(0, ROWS, ROWS)
        drawn = {role: [cells[place] for place in places] for role, cells in rows.items()}
        metrics = task.scores.metrics([predictions[place] for place in places], drawn, label_names, 0.0)
        assert drawn_score(places) == pytest.approx(metrics[task.scores.best_metric])


def test_a_search_counts_each_query_once() -> None:
    task = find_task(Settings.model_validate({"model": {"task": "embedding"}}))
    vectors = np.random.default_rng(0).normal(size=(ROWS, 2, 4)).astype(np.float32)
    queries, passages = vectors[:, 0], vectors[:, 1]
    questions = ["같은 질문", "같은 질문", *(f"질문 {number}" for number in range(ROWS - 2))]
    hits = search(queries, passages, [{place} for place in range(ROWS)])
    hits[1] = hits[0]
    predictions = [Embedded((one,), hit) for one, hit in zip(vectors, hits, strict=True)]
    drawn_score = task.scores.drawn_score(predictions, {"question": questions}, ())
    assert drawn_score is not None
    expected = metrics_of(hits[1:])[task.scores.best_metric]
    assert 0 < expected < 1 and drawn_score(np.arange(ROWS)) == pytest.approx(expected)


def test_similarities_of_drawn_pairs_have_their_correlation() -> None:
    from scipy.stats import spearmanr

    settings = Settings.model_validate({"model": {"task": "embedding"}, "embedding": {"loss": "cosent"}})
    task, draw = find_task(settings), np.random.default_rng(0)
    predictions = [Embedded((one,)) for one in draw.normal(size=(ROWS, 2, 4)).astype(np.float32)]
    labels = draw.random(ROWS)
    drawn_score = task.scores.drawn_score(predictions, {"label": [str(label) for label in labels]}, ())
    assert drawn_score is not None
    places = draw.integers(0, ROWS, ROWS)
    cosines = np.array([one.similarity() for one in predictions])
    assert drawn_score(places) == pytest.approx(float(spearmanr(labels[places], cosines[places])[0]))
