"""Metrics of rerankers beside scikit-learn's and sentence-transformers' own on the same scores."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, ndcg_score

from tests.support.reranker import LISTS, PAIRS, by_column, cleaned, task_of

RANDOM = np.random.default_rng(3)
MANY = [
    {"query": f"질문 {number}", "pos": [f"정답 {number} {n}" for n in range(1 + number % 3)],
     "neg": [f"오답 {number} {n}" for n in range(2 + number % 14)]}
    for number in range(60)
]  # fmt: skip
SCORES = [RANDOM.normal(size=len(row["pos"]) + len(row["neg"])).tolist() for row in MANY]


def measured(task: Any, rows: list[dict[str, Any]], predictions: list[Any]) -> dict[str, float]:
    found: dict[str, float] = task.scores.metrics(predictions, by_column(cleaned(task, rows)[0]), (), 0.0)
    return found


def test_metrics_of_lists_are_scikit_learns() -> None:
    found = measured(task_of(format="lists"), MANY, SCORES)
    labels = [[1] * len(row["pos"]) + [0] * len(row["neg"]) for row in MANY]
    each = [ndcg_score([marks], [scores], k=10) for marks, scores in zip(labels, SCORES, strict=True)]
    assert found["ndcg_at_10"] == pytest.approx(np.mean(each), abs=1e-12)
    rows = by_column(cleaned(task_of(), MANY)[0])
    drawn = task_of(format="lists").scores.drawn_score(SCORES, rows, ())
    assert drawn(np.array([3, 3, 7])) == pytest.approx((2 * each[3] + each[7]) / 3)
    first = [marks[int(np.argmax(scores))] for marks, scores in zip(labels, SCORES, strict=True)]
    assert found["top_accuracy"] == pytest.approx(np.mean(first))


def test_metrics_of_lists_are_those_of_sentence_transformers() -> None:
    evaluation = pytest.importorskip(
        "sentence_transformers.cross_encoder.evaluation", reason="sentence-transformers is not installed"
    )

    class Model:
        """Gives the scores of SCORES to the pairs in their order."""

        model_card_data = None

        def predict(self, pairs: list[Any], **_: Any) -> Any:
            return np.concatenate(SCORES)

    samples = [{"query": row["query"], "positive": row["pos"], "negative": row["neg"]} for row in MANY]
    evaluator = evaluation.CrossEncoderRerankingEvaluator(samples, write_csv=False)
    evaluator.store_metrics_in_model_card_data = lambda *_: None
    theirs, ours = evaluator(Model()), measured(task_of(format="lists"), MANY, SCORES)
    assert ours["mrr_at_10"] == pytest.approx(theirs["mrr@10"], abs=1e-12)
    assert ours["ndcg_at_10"] == pytest.approx(theirs["ndcg@10"], abs=1e-12)


def test_pairs_of_one_query_are_its_list() -> None:
    """Lists that stand as single pairs have the same rankings, and the metrics of pairs besides."""
    pairs = [
        {"query": row["query"], "passage": text, "label": mark}
        for row in MANY
        for mark, texts in ((1, row["pos"]), (0, row["neg"]))
        for text in texts
    ]
    flat = [[score] for own in SCORES for score in own]
    task = task_of(format="pairs")
    rows = by_column(cleaned(task, pairs)[0])
    chosen = task.scores.calibrate(flat, rows, ())["decision_threshold"]
    task.scores.threshold = chosen
    found, lists = task.scores.metrics(flat, rows, (), 0.0), measured(task_of(format="lists"), MANY, SCORES)
    assert {name: found[name] for name in ("ndcg_at_10", "mrr_at_10", "top_accuracy")} == pytest.approx(
        {name: lists[name] for name in ("ndcg_at_10", "mrr_at_10", "top_accuracy")}
    )
    labels, scores = np.array([row["label"] for row in pairs]), np.array(flat)[:, 0]
    assert found["average_precision"] == pytest.approx(average_precision_score(labels, scores))
    probabilities = 1 / (1 + np.exp(-scores))
    edges = np.quantile(probabilities, np.linspace(0, 1, 40))
    best = max(float(f1_score(labels, probabilities >= edge)) for edge in edges)
    assert found["f1"] == pytest.approx(f1_score(labels, probabilities >= chosen))
    assert found["f1"] >= best
    assert found["threshold"] == chosen


def test_the_threshold_is_not_chosen_where_it_is_scored() -> None:
    task = task_of(format="pairs")
    task.scores.threshold = 0.9
    flat = [[2.0 if row["정답"] else -2.0] for row in PAIRS]  # σ(2) is 0.88
    assert measured(task, PAIRS, flat)["f1"] == 0
    assert measured(task, PAIRS, flat)["average_precision"] == 1


def test_equal_scores_rank_nothing_first() -> None:
    found = measured(task_of(format="lists"), LISTS, [[0.0] * (len(row["pos"]) + len(row["neg"])) for row in LISTS])
    assert found["top_accuracy"] == 0


def test_scores_are_compared_by_their_order() -> None:
    rows = [{"질문": f"질문 {n}", "문서": "문서", "점수": n / 4} for n in range(20)]
    task = task_of(format="scores", loss="mse")
    assert measured(task, rows, [[n**3] for n in range(20)])["spearman"] == pytest.approx(1)
    assert measured(task, rows, [[0.0]] * 20)["spearman"] == 0


def test_what_is_had_without_training_is_a_random_order() -> None:
    task = task_of(format="lists")
    naive = task.scores.baseline({}, len(MANY), ())
    found = measured(task, MANY, naive.predictions)
    assert found == measured(task, MANY, naive.predictions)
    assert 0.2 < found["ndcg_at_10"] < 0.8


def test_a_list_is_shown_with_its_ranks() -> None:
    task = task_of(format="lists")
    row = cleaned(task, LISTS)[0][0]
    found = task.shows.readable([-1.0, 3.0, 0.0], row, (), None)
    assert found["rank"] == [3, 1, 2]
    assert found["score"] == pytest.approx([1 / (1 + np.exp(1)), 1 / (1 + np.exp(-3)), 0.5])
    assert task.shows.phrase([-1.0, 3.0, 0.0], row, (), None)[0] == json.loads(row["passages"])[1]
