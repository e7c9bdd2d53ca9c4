"""The likeliest legal tags: against a search of all sequences, and against each token's own likeliest tag."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetuning.tasks.tagging import decoding
from finetuning.tasks.tagging.decoding import decode, likeliest_legal, tagged
from finetuning.tasks.tagging.spans import Span
from tests.support.tagging import NAMES, is_legal

KINDS = st.permutations(NAMES)  # a model from elsewhere may have its tags in any order
LENGTHS = st.lists(st.integers(0, 4), min_size=1, max_size=4)
SEEDS = st.integers(0, 2**32 - 1)


def log_probabilities(lengths: Sequence[int], seed: int, tags: int = len(NAMES)) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    logits = [random.normal(0, 2, (length, tags)) for length in lengths]
    return [(part - np.log(np.exp(part).sum(-1, keepdims=True))).astype(np.float32) for part in logits]


def total(part: np.ndarray, tags: Sequence[int]) -> float:
    return float(sum(part[place, tag].astype(np.float64) for place, tag in enumerate(tags)))


@given(LENGTHS, SEEDS, KINDS)
def test_the_tags_are_those_of_a_search_through_all_legal_sequences(
    lengths: list[int], seed: int, names: list[str]
) -> None:
    scores = log_probabilities(lengths, seed)
    for part, found in zip(scores, likeliest_legal(scores, names), strict=True):
        sequences = itertools.product(range(len(names)), repeat=len(part))
        best = max(total(part, tags) for tags in sequences if is_legal([names[tag] for tag in tags]))
        assert is_legal([names[tag] for tag in found])
        assert total(part, found.tolist()) == pytest.approx(best, abs=1e-9)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 80), min_size=1, max_size=12), SEEDS, st.integers(1, 8))
def test_the_tags_of_any_texts_are_legal_and_the_likeliest_ones_where_those_are(
    lengths: list[int], seed: int, kinds: int
) -> None:
    names = ["O", *(f"{prefix}-{kind}" for kind in range(kinds) for prefix in "BI")]
    scores = log_probabilities(lengths, seed, len(names))
    likeliest = [part.argmax(-1).tolist() for part in scores]
    for raw, found in zip(likeliest, likeliest_legal(scores, names), strict=True):
        tags = [names[tag] for tag in found]
        assert is_legal(tags)
        if is_legal([names[tag] for tag in raw]):
            assert found.tolist() == raw


def test_the_tags_of_a_text_do_not_depend_on_the_texts_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = log_probabilities([5, 0, 40, 1, 17, 40, 3], seed=3)
    together = [tags.tolist() for tags in likeliest_legal(scores, NAMES)]
    assert together == [likeliest_legal([part], NAMES)[0].tolist() for part in scores]
    monkeypatch.setattr(decoding, "_AT_ONCE", 100)
    assert together == [tags.tolist() for tags in likeliest_legal(scores, NAMES)]


def test_a_tag_of_no_chance_and_a_number_that_is_none_leave_the_tags_legal() -> None:
    part = log_probabilities([6], seed=0)[0]
    part[2], part[3] = -np.inf, np.nan
    part[0] = [-np.inf, -np.inf, 0.0, -np.inf, -np.inf]  # I-OG, and nothing else
    assert is_legal([NAMES[tag] for tag in likeliest_legal([part], NAMES)[0]])


def test_a_kind_without_a_beginning_tag_begins_with_its_inside_tag() -> None:
    names = ["O", "I-PS", "B-OG", "I-OG"]
    scores = [np.log(np.array([[0.2, 0.7, 0.1, 0], [0.1, 0.9, 0, 0], [0.4, 0, 0.1, 0.5]], dtype=np.float32) + 1e-9)]
    (tokens,) = tagged([[(0, 1), (1, 2), (3, 4)]], scores, names)
    assert [names[token.tag] for token in tokens] == ["I-PS", "I-PS", "O"]
    assert [names[token.raw] for token in tokens] == ["I-PS", "I-PS", "I-OG"]
    assert decode(tokens, names) == [(Span(0, 2, "PS"), pytest.approx(0.8))]


def test_the_tag_before_is_changed_where_that_is_likelier_than_to_drop_what_follows() -> None:
    """박 is nearly as likely the beginning of a name as nothing, and 씨 is very likely inside one."""
    chances = np.array([[0.5, 0.02, 0.02, 0.44, 0.02], [0.05, 0.01, 0.01, 0.03, 0.9]])
    (tokens,) = tagged([[(0, 1), (1, 2)]], [np.log(chances)], NAMES)
    assert [(NAMES[token.tag], NAMES[token.raw]) for token in tokens] == [("B-PS", "O"), ("I-PS", "I-PS")]
    assert decode(tokens, NAMES) == [(Span(0, 2, "PS"), pytest.approx((0.44 + 0.9) / 2))]
