"""Cut a window into micro-batches with the least padded work under a token budget."""

from __future__ import annotations

import numpy as np

# The fixed cost of a micro-batch in tokens: kernel launches and one Python call a layer. The partition weighs it
# against padding. On a CPU 16 and 64 took the same time. Elsewhere the number is an estimate: a GPU computes some
# thousand tokens in the milliseconds that launching a model's kernels takes. The cost is a constant and not measured
# at the start of a run: the cut changes how sums are rounded, so a measured one would make two runs of a seed differ.
COST_ON_CPU = 64
_COST_ELSEWHERE = 1024
FEWEST = 2**40  # a fixed cost so large that the partition makes as few micro-batches as possible


def micro_batch_cost(device_type: str) -> int:
    """Return the fixed cost of a micro-batch, in tokens, on a device of this type (torch's name for it)."""
    return COST_ON_CPU if device_type == "cpu" else _COST_ELSEWHERE


def partition(
    indices: np.ndarray, lengths: np.ndarray, token_budget: int, fixed_cost: int = COST_ON_CPU
) -> list[np.ndarray]:
    """Cut examples, sorted by length, into micro-batches with the least padded work.

    The work of a micro-batch is (examples × longest) + fixed_cost tokens. Contiguous cuts of the sorted order contain
    an optimum; dynamic programming over the last cut finds it in O(n²) for n examples.

    Args:
        indices: Positions of the examples, int64, shape (n,).
        lengths: Tokens of every example of the split, int32; `indices` point into it.
        token_budget: Upper bound of examples × longest. A longer example is a micro-batch by itself.
        fixed_cost: Cost of one more micro-batch, in tokens.

    Returns:
        The micro-batches, shortest examples first, each an int64 array of positions.
    """
    count = len(indices)
    by_length = indices[np.argsort(lengths[indices], kind="stable")]
    longest = lengths[by_length].astype(np.int64)
    best = np.zeros(count + 1, dtype=np.int64)
    cut_before = np.zeros(count + 1, dtype=np.int64)
    for end in range(1, count + 1):
        padded = np.arange(end, 0, -1) * longest[end - 1]  # for each start 0 .. end-1
        work = best[:end] + padded + fixed_cost
        allowed = padded <= token_budget
        allowed[-1] = True
        work[~allowed] = np.iinfo(np.int64).max
        cut_before[end] = int(np.argmin(work))
        best[end] = work[cut_before[end]]
    cuts: list[np.ndarray] = []
    end = count
    while end > 0:
        cuts.append(by_length[cut_before[end] : end])
        end = int(cut_before[end])
    return cuts[::-1]
