"""The order of an epoch and its windows: a pure function of (seed, epoch), so that a resumed run recomputes it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Window:
    """The examples of one optimizer step over all processes.

    Attributes:
        epoch: Epoch, from 0.
        number: Number of the window in its epoch, from 0.
        indices: Positions into Examples, int64, shape (examples of the window,).
    """

    epoch: int
    number: int
    indices: np.ndarray


def windows_per_epoch(examples: int, window_size: int) -> int:
    """Return the number of windows in an epoch; the last one may be smaller."""
    return -(-examples // window_size)


def epoch_order(examples: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of an epoch's examples as int64 positions, shape (examples,), from seed and epoch alone."""
    return np.random.default_rng([seed, epoch]).permutation(examples)


def window_of(order: np.ndarray, window_size: int, epoch: int, number: int) -> Window:
    """Return window `number` of the epoch whose order is given."""
    return Window(epoch, number, order[number * window_size : (number + 1) * window_size])


def share_of(window: Window, lengths: np.ndarray, process: int, processes: int) -> np.ndarray:
    """Return this process's positions of a window: every n-th by length, so that all processes have similar work."""
    by_length = window.indices[np.argsort(lengths[window.indices], kind="stable")]
    return by_length[process::processes]
