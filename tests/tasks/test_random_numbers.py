"""Random numbers of batches: the same whatever batch a row is in, evenly spread, and apart by all that names them."""

from __future__ import annotations

import numpy as np

from finetuning.tasks.random_numbers import uniform
from finetuning.types import RandomKey

KEY = RandomKey(seed=3, epoch=5)
PLACES = np.arange(100)


def test_a_row_has_its_numbers_in_any_batch() -> None:
    rows = np.arange(50)[:, None]
    together = uniform(KEY, 0, rows, PLACES)
    assert together.shape == (50, 100)
    for row in (0, 17, 49):
        assert np.array_equal(uniform(KEY, 0, np.array([[row]]), PLACES[:30])[0], together[row, :30])


def test_numbers_are_uniform_and_neighbours_independent() -> None:
    found = uniform(KEY, 0, np.arange(2000)[:, None], PLACES)
    counts = np.histogram(found, bins=50, range=(0, 1))[0]
    assert counts.sum() == found.size  # all of them in [0, 1)
    assert ((counts - found.size / 50) ** 2 / (found.size / 50)).sum() < 49 + 5 * np.sqrt(2 * 49)  # chi-squared
    for shifted in (found[1:] * found[:-1], found[:, 1:] * found[:, :-1]):
        assert abs(shifted.mean() - 0.25) < 5 * np.sqrt(7 / 144 / shifted.size)


def test_seed_epoch_and_kind_give_other_numbers() -> None:
    rows = np.arange(20)[:, None]
    found = [
        uniform(key, kind, rows, PLACES)
        for key in (KEY, RandomKey(3, 6), RandomKey(4, 5), RandomKey(5, 3))
        for kind in (0, 1)
    ]
    assert len({float(numbers[0, 0]) for numbers in found}) == len(found)
    correlations = np.corrcoef([numbers.ravel() for numbers in found])
    assert np.abs(correlations - np.eye(len(found))).max() < 5 / np.sqrt(found[0].size)
