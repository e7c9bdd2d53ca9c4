"""Metrics of rankings beside numbers worked by hand, scikit-learn's nDCG, and what must hold for any ranking."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from sklearn.metrics import ndcg_score

from finetuning.tasks.ranking import hit, ndcg, ranks_of, recall, reciprocal_rank

SCORES = np.array([0.2, 0.9, 0.5, 0.7])
GAINS = np.array([1.0, 0.0, 2.0, 0.0])


def test_ranks_begin_at_one_with_the_highest_score() -> None:
    assert ranks_of(SCORES, GAINS).tolist() == [4, 1, 3, 2]


def test_a_tie_counts_against_the_ranking() -> None:
    assert ranks_of(np.zeros(4), GAINS).tolist() == [3, 1, 4, 2]
    assert ranks_of(np.array([math.nan, 0.1]), np.array([1.0, 0.0])).tolist() == [2, 1]


def test_values_worked_by_hand() -> None:
    ranks = ranks_of(SCORES, GAINS)[GAINS > 0]  # 4 and 3
    assert reciprocal_rank(ranks) == 1 / 3
    assert reciprocal_rank(ranks, k=2) == 0
    assert [recall(ranks, 2, k) for k in (2, 3, 4)] == [0, 0.5, 1]
    assert [hit(ranks, k) for k in (1, 2, 3)] == [0, 0, 1]
    found = 2 / math.log2(4) + 1 / math.log2(5)
    assert ndcg(ranks, GAINS[GAINS > 0]) == pytest.approx(found / (2 + 1 / math.log2(3)))
    assert ndcg(ranks, GAINS[GAINS > 0], k=3) == pytest.approx(1 / (2 + 1 / math.log2(3)))


def test_relevant_items_that_were_not_found_lower_the_values() -> None:
    ranks, nothing = np.array([1]), np.array([], dtype=np.int64)
    assert recall(ranks, 4, k=10) == 0.25
    assert ndcg(ranks, np.ones(1), ideal=np.ones(2)) == pytest.approx(1 / (1 + 1 / math.log2(3)))
    assert (reciprocal_rank(nothing), hit(nothing), ndcg(nothing, np.ones(0), ideal=np.ones(2))) == (0, 0, 0)


@given(some.data())
def test_ndcg_without_ties_is_that_of_scikit_learn(data: some.DataObject) -> None:
    count, k = data.draw(some.integers(2, 20)), data.draw(some.integers(1, 12))
    scores = np.array(data.draw(some.permutations(range(count))), dtype=np.float64)
    gains = np.array(data.draw(some.lists(some.integers(0, 3), min_size=count, max_size=count)), dtype=np.float64)
    found = ndcg(ranks_of(scores, gains), gains, k=k)
    assert found == pytest.approx(ndcg_score(gains[None], scores[None], k=k), abs=1e-12)
