"""The order of very many examples, which is computed place by place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetuning.windows import order as ordering
from finetuning.windows.order import epoch_order, place_of, window_of, windows_per_epoch
from finetuning.windows.shuffled import Shuffled

SEEDS, EPOCHS = st.integers(0, 2**32 - 1), st.integers(0, 5)


@given(st.integers(1, 3000), SEEDS, EPOCHS)
def test_every_example_has_one_place(size: int, seed: int, epoch: int) -> None:
    order = Shuffled(size, seed, epoch)
    positions = order[:]
    assert len(order) == size and positions.dtype == np.int64
    assert np.array_equal(np.sort(positions), np.arange(size))
    for position in (0, size // 2, size - 1):
        assert positions[order.place_of(position)] == position


@settings(max_examples=30)
@given(st.integers(2**24, 2**40), SEEDS, st.data())
def test_a_window_of_very_many_is_computed_alone(size: int, seed: int, data: st.DataObject) -> None:
    order = Shuffled(size, seed, 0)
    start = data.draw(st.integers(0, size - 64))
    positions = order[start : start + 64]
    assert len(set(positions.tolist())) == 64 and positions.min() >= 0 and positions.max() < size
    assert [order.place_of(position) for position in positions.tolist()] == list(range(start, start + 64))


def test_places_are_as_random_as_numpys() -> None:
    """Over many epochs each pair of examples stands as often in the first two places."""
    size, epochs = 16, 6_000
    first = np.array([Shuffled(size, 7, epoch)[:2] for epoch in range(epochs)])
    pairs = np.bincount(first[:, 0] * size + first[:, 1], minlength=size * size).reshape(size, size)
    assert not pairs.diagonal().any()
    pairs = pairs[~np.eye(size, dtype=bool)]
    expected, freedom = epochs / len(pairs), len(pairs) - 1
    chi_squared = float(((pairs - expected) ** 2 / expected).sum())
    assert abs(chi_squared - freedom) < 5 * (2 * freedom) ** 0.5


def test_seed_and_epoch_make_an_order() -> None:
    orders = [Shuffled(1000, seed, epoch)[:].tolist() for seed, epoch in ((1, 0), (1, 0), (1, 1), (2, 0))]
    assert orders[0] == orders[1] and orders[0] != orders[2] != orders[3] != orders[0]


def test_only_the_order_of_very_many_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = np.random.default_rng([3, 1]).permutation(100)
    found = epoch_order(100, 3, 1)
    assert np.array_equal(found[:], drawn)
    assert [place_of(found, position) for position in (0, 99)] == [drawn.tolist().index(0), drawn.tolist().index(99)]
    assert place_of(drawn[:50], int(drawn[50])) is None

    monkeypatch.setattr(ordering, "_MOST_IN_MEMORY", 99)
    computed = epoch_order(100, 3, 1)
    windows = [window_of(computed, 16, 1, number).indices for number in range(windows_per_epoch(100, 16))]
    assert np.array_equal(np.sort(np.concatenate(windows)), np.arange(100))
    assert not np.array_equal(np.concatenate(windows), drawn)
