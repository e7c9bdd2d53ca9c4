"""Which examples make an optimizer step (a window), and how a window is cut into micro-batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# A micro-batch costs as much as this many tokens before its first token is computed: kernel launches, a Python call for
# each layer. The partition weighs it against padding. On a CPU 16 and 64 took the same time. Off it the number is an
# estimate: some thousand tokens are computed in the milliseconds that launching a model's kernels takes. It is not
# measured at the start of a run: the cut changes how sums are rounded, so two runs of one seed would differ wherever
# the clock did.
MICRO_BATCH_COST = 64
_MICRO_BATCH_COST_OFF_CPU = 1024


def micro_batch_cost(device_type: str) -> int:
    """What a micro-batch costs on a kind of device (torch's name for it), in tokens."""
    return MICRO_BATCH_COST if device_type == "cpu" else _MICRO_BATCH_COST_OFF_CPU


@dataclass(frozen=True)
class Window:
    """The examples of one optimizer step, over all processes: int64 positions into Examples."""

    epoch: int
    number: int
    indices: np.ndarray


def windows_per_epoch(examples: int, window_size: int) -> int:
    """How many windows an epoch has; the last may be smaller."""
    return -(-examples // window_size)


def epoch_order(examples: int, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch's examples, a pure function of seed and epoch: int64 positions, 8 bytes an example."""
    return np.random.default_rng([seed, epoch]).permutation(examples)


def window_of(order: np.ndarray, window_size: int, epoch: int, number: int) -> Window:
    """Window `number` of an epoch, out of the epoch's order."""
    return Window(epoch, number, order[number * window_size : (number + 1) * window_size])


def share_of(window: Window, lengths: np.ndarray, process: int, processes: int) -> np.ndarray:
    """This process's positions of a window: every n-th by length, so that the processes' work is alike."""
    by_length = window.indices[np.argsort(lengths[window.indices], kind="stable")]
    return by_length[process::processes]


def partition(
    indices: np.ndarray, lengths: np.ndarray, token_budget: int, micro_batch_cost: int = MICRO_BATCH_COST
) -> list[np.ndarray]:
    """Cuts positions into micro-batches, sorted by length, where the padded work is least.

    The work of a micro-batch is (examples × longest) + micro_batch_cost tokens; examples × longest stays within
    token_budget, but for an example longer than that, which goes alone. Contiguous cuts of the sorted order hold an
    optimum, found by dynamic programming over the last cut, O(n²) for n examples.
    """
    count = len(indices)
    by_length = indices[np.argsort(lengths[indices], kind="stable")]
    longest = lengths[by_length].astype(np.int64)
    best = np.zeros(count + 1, dtype=np.int64)
    cut_before = np.zeros(count + 1, dtype=np.int64)
    for end in range(1, count + 1):
        padded = np.arange(end, 0, -1) * longest[end - 1]  # for each start 0 .. end-1
        work = best[:end] + padded + micro_batch_cost
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
