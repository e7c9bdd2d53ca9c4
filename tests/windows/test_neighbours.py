"""Groups of similar examples in an epoch's order: a pure function of the examples, seed and epoch."""

from __future__ import annotations

import numpy as np
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from finetuning.data.examples import Drawn, Examples
from finetuning.windows.order import order_of

TOPICS, OF_EACH, COMMON = 6, 8, 100  # examples of a topic share its own tokens, and all share the common one


def examples_of(count: int, neighbours: int, drawn: tuple[Drawn, ...] = ()) -> Examples:
    random = np.random.default_rng(0)
    rows = [
        [COMMON, *(number % TOPICS * 10 + random.permutation(10)[:4]), *random.integers(200, 900, 2)]
        for number in range(count)
    ]
    table = Dataset.from_dict({"row": list(range(count)), "input_ids": rows})
    return Examples(table, np.full(count, 7, dtype=np.int32), table, drawn, neighbours)


@given(st.integers(1, 40), st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_every_example_is_there_once(count: int, size: int, seed: int) -> None:
    assert sorted(order_of(examples_of(count, size), seed, 0)) == list(range(count))


def test_similar_examples_stand_together_anew_in_each_epoch() -> None:
    examples = examples_of(TOPICS * OF_EACH, 4)
    orders = [order_of(examples, seed, epoch) for seed, epoch in ((1, 0), (1, 1), (2, 0))]
    assert (order_of(examples, 1, 0) == orders[0]).all()
    assert len({tuple(order) for order in orders}) == 3
    pure = [len(set(group % TOPICS)) == 1 for order in orders for group in order.reshape(-1, 4)]
    assert np.mean(pure) > 0.8  # in a random order hardly any
    groups = [{frozenset(group) for group in order.reshape(-1, 4).tolist()} for order in orders]
    assert groups[0] != groups[1]


def test_what_a_mixture_draws_is_grouped() -> None:
    drawn = (Drawn("a", 10, 15, 0), Drawn("b", 14, 5, 10))
    plain, grouped = (order_of(examples_of(24, size, drawn), 3, 1) for size in (0, 4))
    assert sorted(plain) == sorted(grouped) and (plain != grouped).any()
