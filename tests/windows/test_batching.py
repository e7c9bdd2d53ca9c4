"""The window's order, share and partition."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetuning.data.examples import batches_by_length
from finetuning.windows.order import (
    Window,
    epoch_order,
    share_of,
    window_of,
    windows_per_epoch,
)
from finetuning.windows.partition import COST_ON_CPU, micro_batch_cost, partition, runs_of_like_length

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=40)


def work(cuts: list[np.ndarray], lengths: np.ndarray) -> int:
    return sum(len(cut) * int(lengths[cut].max()) + COST_ON_CPU for cut in cuts)


@given(st.integers(1, 500), st.integers(1, 64), st.integers(0, 2**32 - 1), st.integers(0, 5))
def test_windows_of_an_epoch_hold_every_example_once(examples: int, size: int, seed: int, epoch: int) -> None:
    order = epoch_order(examples, seed, epoch)
    windows = [window_of(order, size, epoch, n) for n in range(windows_per_epoch(examples, size))]
    assert sorted(np.concatenate([w.indices for w in windows])) == list(range(examples))
    assert all(len(w.indices) == size for w in windows[:-1])
    assert 1 <= len(windows[-1].indices) <= size


def test_order_depends_on_seed_and_epoch_alone() -> None:
    assert (epoch_order(100, 1, 2) == epoch_order(100, 1, 2)).all()
    assert (epoch_order(100, 1, 2) != epoch_order(100, 1, 3)).any()
    assert (epoch_order(100, 1, 2) != epoch_order(100, 2, 2)).any()


@given(LENGTHS, st.integers(1, 8))
def test_processes_share_a_window_without_overlap(lengths: list[int], processes: int) -> None:
    window = Window(0, 0, np.arange(len(lengths)))
    shares = [share_of(window, np.array(lengths), process, processes) for process in range(processes)]
    assert sorted(np.concatenate(shares)) == list(range(len(lengths)))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(LENGTHS, st.integers(1, 400))
def test_partition_holds_every_example_once_within_the_budget(lengths: list[int], budget: int) -> None:
    array = np.array(lengths)
    cuts = partition(np.arange(len(lengths)), array, budget)
    assert sorted(np.concatenate(cuts)) == list(range(len(lengths)))
    for cut in cuts:
        assert len(cut) == 1 or len(cut) * array[cut].max() <= budget


@given(LENGTHS, st.integers(1, 400), st.integers(1, 5))
def test_a_budget_of_real_tokens_bounds_padding_too(lengths: list[int], budget: int, padded: int) -> None:
    array = np.array(lengths)
    cuts = partition(np.arange(len(lengths)), array, budget, padded=padded)
    assert sorted(np.concatenate(cuts)) == list(range(len(lengths)))
    for cut in cuts:
        within = array[cut].sum() <= budget and len(cut) * array[cut].max() <= padded * budget
        assert len(cut) == 1 or within


@given(st.lists(st.integers(1, 300), min_size=1, max_size=9))
def test_partition_is_the_best_of_all_contiguous_cuts(lengths: list[int]) -> None:
    array = np.array(lengths)
    by_length = np.argsort(array, kind="stable")
    best = min(
        work(np.split(by_length, list(places)), array)
        for count in range(len(lengths))
        for places in combinations(range(1, len(lengths)), count)
    )
    assert work(partition(np.arange(len(lengths)), array, 10**9), array) == best


@given(st.lists(st.integers(1, 300), min_size=1, max_size=9))
def test_runs_of_like_length_are_the_best_of_all_cuts_in_the_order_of_the_rows(lengths: list[int]) -> None:
    array = np.array(lengths)
    best = min(
        work(np.split(np.arange(len(lengths)), list(places)), array)
        for count in range(len(lengths))
        for places in combinations(range(1, len(lengths)), count)
    )
    runs = runs_of_like_length(array, COST_ON_CPU)
    assert [start for start, _ in runs] == [0, *(end for _, end in runs[:-1])] and runs[-1][1] == len(lengths)
    assert work([np.arange(*run) for run in runs], array) == best


def test_partition_saves_padding_on_mixed_lengths() -> None:
    lengths = np.array([5] * 32 + [200] * 32)
    cuts = partition(np.arange(64), lengths, 16 * 512)
    padded = sum(len(cut) * lengths[cut].max() for cut in cuts)
    assert padded == lengths.sum()


def test_a_higher_fixed_cost_makes_fewer_micro_batches() -> None:
    lengths = np.random.default_rng(0).integers(5, 90, 64)
    costs = [0, micro_batch_cost("cpu"), micro_batch_cost("cuda"), 10**9]
    counts = [len(partition(np.arange(64), lengths, 64 * 90, cost)) for cost in costs]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == len(set(lengths))
    assert counts[0] > counts[1] > counts[2] >= counts[3] == 1


@pytest.mark.parametrize("budget", [1, 50, 1000])
def test_evaluation_batches_hold_every_example_once(budget: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 60, 200)
    batches = batches_by_length(lengths, budget)
    assert sorted(np.concatenate(batches)) == list(range(200))
    assert all(len(batch) == 1 or len(batch) * lengths[batch].max() <= budget for batch in batches)
