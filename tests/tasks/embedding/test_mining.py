"""Hard negatives: the rule that keeps out what may be an answer, and BM25, beside plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from finetuning.inference.lexical import Lexical
from finetuning.inference.mining import Rule, Tally, mined

TEXTS = ["서울", "부산", "대구", " 서 울 ", "인천"]


def vectors(*angles: float) -> np.ndarray:
    return np.array([[math.cos(angle), math.sin(angle)] for angle in angles], dtype=np.float32)


def test_a_negative_is_less_similar_than_the_answer_by_the_margin_and_no_copy_of_it() -> None:
    corpus, query = vectors(0.2, 0.25, 0.6, 1.5, 1.2), vectors(0.0)
    tally = Tally()
    found = list(mined(query, corpus, TEXTS, [[0]], [None], Rule(2, 0.05), tally))
    # 부산 is nearer than 95% of the answer's similarity allows, the fourth text is the answer again
    assert found == [[2, 4]]
    assert (tally.queries, tally.full, tally.none, tally.too_near) == (1, 1, 0, 1)


def test_the_most_similar_of_several_answers_counts_and_none_is_a_negative() -> None:
    found = list(mined(vectors(0.0), vectors(0.2, 0.25, 0.6, 1.5, 0.0), TEXTS, [[0, 4]], [None], Rule(9, 0.0), Tally()))
    assert found == [[1, 2]]


def test_it_is_the_plain_search_for_every_query() -> None:
    draw = np.random.default_rng(0)
    corpus, queries = (draw.standard_normal((count, 8)).astype(np.float32) for count in (60, 40))
    right = [[int(place)] for place in draw.integers(60, size=40)]
    texts = [f"문서 {number}" for number in range(60)]
    found = list(mined(queries, corpus, texts, right, [None], Rule(5, 0.1), Tally()))
    for query, own, negatives in zip(queries, right, found, strict=True):
        products = corpus @ query
        bound = products[own[0]] - abs(products[own[0]]) * 0.1
        allowed = [place for place in np.argsort(-products) if products[place] < bound and place != own[0]]
        assert negatives == allowed[:5]


def test_two_rankings_take_turns() -> None:
    corpus, query = vectors(0.0, 0.5, 0.6, 0.7, 0.8), vectors(0.0)
    other = Lexical(["가", "가", "가", "나 나", "나"], ["나"], str.split)
    found = list(mined(query, corpus, list("가나다라마"), [[0]], [None, other], Rule(3, 0.05), Tally()))
    assert found == [[1, 3, 2]]


def test_bm25_is_lucenes() -> None:
    passages = ["가 나 나 다", "가 라", "마 마 마 마 나", "바"]
    scores = Lexical(passages, ["나 바", "나 나", "없음"], str.split)(range(3))
    split = [text.split() for text in passages]
    mean = sum(map(len, split)) / len(split)

    def weight(term: str, words: list[str]) -> float:
        holding = sum(term in other for other in split)
        rarity = math.log(1 + (len(split) - holding + 0.5) / (holding + 0.5))
        count = words.count(term)
        return rarity * count / (count + 1.2 * (1 - 0.75 + 0.75 * len(words) / mean))

    assert scores[0, 0] == pytest.approx(weight("나", split[0]), rel=1e-5)
    assert scores[0, 3] == pytest.approx(weight("바", split[3]), rel=1e-5)
    assert scores[1, 2] == pytest.approx(2 * weight("나", split[2]), rel=1e-5)
    assert np.isneginf(scores[0, 1]) and np.isneginf(scores[2]).all()
