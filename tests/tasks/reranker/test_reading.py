"""Data for rerankers as people have them: read into pairs and lists, or refused by name."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from exceptions import DataError
from tests.support.reranker import LISTS, PAIRS, cleaned, task_of, taught

QUERY, GOOD, BAD = "수도는?", ["서울이다."], ["부산이다.", "강릉이다."]
LIST = {"question": QUERY, "passages": [*GOOD, *BAD], "labels": [1.0, 0.0, 0.0]}


@pytest.mark.parametrize(
    "row",
    [
        {"query": QUERY, "pos": GOOD, "neg": BAD, "type": "normal"},
        {"query": QUERY, "positives": json.dumps(GOOD), "negatives": str(BAD)},  # cells of a CSV, by JSON and by Python
        {"anchor": QUERY, "positive": GOOD[0], "negative_1": BAD[0], "negative_2": BAD[1]},
        {"질문": QUERY, "정답 문서": GOOD[0], "오답 문서 1": BAD[0], "오답 문서 2": BAD[1]},
        {"query": QUERY, "positive_passages": [{"docid": "1", "title": "", "text": GOOD[0]}],
         "negative_passages": [{"docid": "2", "text": text} for text in BAD]},
        {"query": QUERY, "passages": [*GOOD, *BAD], "labels": [1, 0, 0]},
        {"query": QUERY, "docs": [*GOOD, *BAD], "labels": [True, False, False]},
        {"query": QUERY, "pos": GOOD, "neg": [*BAD, *GOOD, BAD[0]]},  # a false negative, and one that is there twice
    ],
)  # fmt: skip
def test_shapes_of_lists(row: dict[str, Any]) -> None:
    (found,), findings = cleaned(task_of(), [row])
    assert not findings.skipped
    read = {name: found[name] if name == "question" else json.loads(found[name]) for name in LIST}
    assert read == LIST


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ({"질문": QUERY, "문서": GOOD[0], "정답": 1}, "1"),
        ({"query": QUERY, "passage": GOOD[0], "label": "0"}, "0"),
        ({"query": QUERY, "document": GOOD[0], "score": "0.50"}, "0.5"),
        ({"question": QUERY, "context": GOOD[0], "label": "관련"}, "1"),
        ({"질문": QUERY, "문서": GOOD[0], "점수": 3}, "3"),
    ],
)
def test_shapes_of_pairs(row: dict[str, Any], label: str) -> None:
    (found,), _ = cleaned(task_of(), [row])
    assert found == {"row": 1, "question": QUERY, "context": GOOD[0], "label": label}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"query": QUERY, "pos": [], "neg": BAD}, "정답 문서가 없는 행"),
        ({"query": QUERY, "pos": "", "neg": BAD}, "빈 정답 문서"),
        ({"query": QUERY, "pos": GOOD, "neg": []}, "오답 문서가 없는 행"),
        ({"query": QUERY, "pos": GOOD, "neg": GOOD}, "오답 문서가 없는 행"),
        ({"query": QUERY, "passages": BAD, "labels": [1]}, "문서는 2개인데 라벨은 1개인 행"),
        ({"query": QUERY, "passages": BAD, "labels": [1, 1]}, "오답 문서가 없는 행"),
        ({"query": QUERY, "passage": GOOD[0], "label": "서울"}, "0, 1이나 숫자인 점수가 아닌 라벨"),
        ({"query": QUERY, "passage": GOOD[0], "label": float("inf")}, "0, 1이나 숫자인 점수가 아닌 라벨"),
        ({"query": [QUERY, QUERY], "passage": GOOD[0], "label": 1}, "질문 칸에 텍스트가 하나가 아닌 행"),
        ({"query": QUERY, "pos": [{"docid": "1"}], "neg": BAD}, "텍스트가 없는 객체(text 키가 필요합니다)"),
    ],
)
def test_rows_that_cannot_be_used_are_named(row: dict[str, Any], said: str) -> None:
    rows, findings = cleaned(task_of(), [row])
    assert rows == []
    assert findings.skipped_rows == {said: [1]}


def test_scores_of_a_teacher_stay_beside_their_passages() -> None:
    row = {"query": QUERY, "pos": GOOD, "neg": [BAD[0], GOOD[0], BAD[1]], "pos_scores": [9], "neg_scores": [3, 8, 1]}
    (found,), _ = cleaned(task_of(loss="margin_mse"), [row])
    assert json.loads(found["teacher"]) == [9, 3, 1]
    rows, findings = cleaned(task_of(loss="margin_mse"), [{**row, "neg_scores": [3]}])
    assert (rows, findings.skipped) == ([], {"교사 점수와 문서의 수가 다른 행": 1})
    with pytest.raises(DataError, match="pos_scores"):
        cleaned(task_of(loss="margin_mse"), LISTS)


@pytest.mark.parametrize(
    ("labels", "shape", "loss", "metric"),
    [
        (None, "lists", "listwise", "ndcg_at_10"),
        (("0", "1"), "pairs", "bce", "average_precision"),
        (("0", "0.5", "1"), "scores", "bce", "spearman"),
        (("0", "3", "5"), "scores", "mse", "spearman"),
    ],
)
def test_the_data_choose_loss_and_metric(labels: tuple[str, ...] | None, shape: str, loss: str, metric: str) -> None:
    roles = ["question", "passages", "labels"] if labels is None else ["question", "context", "label"]
    task = task_of()
    found = task.reads.refine(roles, Counter(labels or ()))
    assert (found.reranker.format, found.reranker.loss) == (shape, loss)
    assert type(task)(found).scores.best_metric == metric


@pytest.mark.parametrize(("loss", "labels"), [("listwise", ("0", "1")), ("margin_mse", ("0", "1")), (None, ("1",))])
def test_pairs_that_cannot_be_learned_are_refused(loss: str | None, labels: tuple[str, ...]) -> None:
    with pytest.raises(DataError):
        task_of(loss=loss).reads.refine(["question", "context", "label"], Counter(labels))


def test_a_score_beyond_1_is_no_probability() -> None:
    rows, findings = cleaned(task_of(loss="bce"), [{**PAIRS[0], "정답": 3}])
    assert rows == []
    assert findings.skipped == {"bce로 학습할 수 없는, 0과 1 사이가 아닌 점수": 1}


def test_a_teacher_is_read_only_where_its_loss_is_asked_for() -> None:
    assert "teacher" not in cleaned(task_of(), taught())[0][0]


@pytest.mark.parametrize(
    ("good", "bad", "kept"),
    [(1, 9, "g0 b0 b1 b2"), (5, 9, "g0 g1 b0 b1"), (5, 1, "g0 g1 g2 b0"), (2, 2, "g0 g1 b0 b1"), (1, 1, "g0 b0")],
)
def test_a_long_list_is_cut_with_its_teachers_scores(good: int, bad: int, kept: str) -> None:
    goods, bads = ([f"{kind}{number}" for number in range(count)] for kind, count in (("g", good), ("b", bad)))
    row = {"query": QUERY, "pos": goods, "neg": bads, "pos_scores": list(range(good)), "neg_scores": list(range(bad))}
    (found,), _ = cleaned(task_of(max_passages=4, loss="margin_mse"), [row])
    assert json.loads(found["passages"]) == kept.split()
    assert json.loads(found["labels"]) == [float(name[0] == "g") for name in kept.split()]
    assert json.loads(found["teacher"]) == [float(name[1]) for name in kept.split()]
