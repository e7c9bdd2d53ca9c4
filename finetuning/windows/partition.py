"""Cut a window into micro-batches with the least padded work under a token budget."""

from __future__ import annotations

import numpy as np

# The fixed cost of a micro-batch in tokens: kernel launches and one Python call a layer. The partition weighs it
# against padding. On a CPU 16 and 64 took the same time. Elsewhere the number is an estimate: a GPU computes some
# thousand tokens in the milliseconds that launching a model's kernels takes. The cost is a constant and not measured
# at the start of a run: the cut changes how sums are rounded, so a measured one would make two runs of a seed differ.
COST_ON_CPU = 64
_COST_ELSEWHERE = 1024
_UNBOUNDED = np.iinfo(np.int64).max
FEWEST = 2**40  # a fixed cost so large that the partition makes as few micro-batches as possible


def micro_batch_cost(device_type: str) -> int:
    """Return the fixed cost of a micro-batch, in tokens, on a device of this type (torch's name for it)."""
    return COST_ON_CPU if device_type == "cpu" else _COST_ELSEWHERE


def partition(
    indices: np.ndarray, lengths: np.ndarray, token_budget: int, fixed_cost: int = COST_ON_CPU, padded: int = 1
) -> list[np.ndarray]:
    """Cut examples, sorted by length, into micro-batches with the least padded work.

    The work of a micro-batch is (examples × longest) + fixed_cost tokens. Contiguous cuts of the sorted order contain
    an optimum; dynamic programming over the last cut finds it in O(n²) for n examples.

    Args:
        indices: Positions of the examples, int64, shape (n,).
        lengths: Tokens of every example of the split, int32; `indices` point into it.
        token_budget: Upper bound of a micro-batch's real tokens. A longer example is a micro-batch by itself.
        fixed_cost: Cost of one more micro-batch, in tokens.
        padded: How many times the budget examples × longest may be. 1 where every padded token is computed.

    Returns:
        The micro-batches, shortest examples first, each an int64 array of positions.
    """
    by_length = indices[np.argsort(lengths[indices], kind="stable")]
    runs = _runs(lengths[by_length], fixed_cost, token_budget, padded * token_budget)
    return [by_length[start:end] for start, end in runs]


def runs_of_like_length(lengths: np.ndarray, fixed_cost: int) -> list[tuple[int, int]]:
    """Cut rows, in the order that they have, into runs with the least padded work.

    Args:
        lengths: Tokens of each row, int, shape (n,).
        fixed_cost: Cost of one more run, in tokens.

    Returns:
        The first row and the end of each run.
    """
    return _runs(lengths, fixed_cost, _UNBOUNDED, _UNBOUNDED)


def _runs(lengths: np.ndarray, fixed_cost: int, most_real: int, most_padded: int) -> list[tuple[int, int]]:
    """Return the runs with the least padded work; a run of several has so many real and padded tokens at most."""
    count, lengths = len(lengths), lengths.astype(np.int64)
    until = np.concatenate([[0], lengths.cumsum()])  # real tokens before each
    best = np.zeros(count + 1, dtype=np.int64)
    cut_before = np.zeros(count + 1, dtype=np.int64)
    for end in range(1, count + 1):
        longest = np.maximum.accumulate(lengths[:end][::-1])[::-1]  # for each start 0 .. end-1
        places = np.arange(end, 0, -1) * longest
        work = best[:end] + places + fixed_cost
        allowed = (places <= most_padded) & (until[end] - until[:end] <= most_real)
        allowed[-1] = True
        work[~allowed] = _UNBOUNDED
        cut_before[end] = int(np.argmin(work))
        best[end] = work[cut_before[end]]
    runs: list[tuple[int, int]] = []
    end = count
    while end > 0:
        runs.append((int(cut_before[end]), end))
        end = runs[-1][0]
    return runs[::-1]
