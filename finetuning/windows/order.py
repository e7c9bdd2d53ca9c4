"""The order of an epoch and its windows: a pure function of (seed, epoch), so that a resumed run recomputes it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finetuning.data.examples import Drawn, Examples
from finetuning.windows.neighbours import with_neighbours
from finetuning.windows.shuffled import Shuffled

_MOST_IN_MEMORY = 2**24  # examples whose order is drawn as an array of 128 MiB
Order = np.ndarray | Shuffled


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


def epoch_order(examples: int, seed: int, epoch: int) -> Order:
    """Return the order of an epoch's examples, from seed and epoch alone.

    Args:
        examples: Number of examples.
        seed: The seed of the run.
        epoch: The epoch, from 0.

    Returns:
        Their positions, int64, shape (examples,); of very many something whose slices are such arrays.
    """
    if is_computed(examples):
        return Shuffled(examples, seed, epoch)
    return np.random.default_rng([seed, epoch]).permutation(examples)


def is_computed(examples: int) -> bool:
    """Return whether so many examples have an order that is computed place by place, and no array."""
    return examples > _MOST_IN_MEMORY


def order_of(examples: Examples, seed: int, epoch: int) -> Order:
    """Return the order of an epoch, of all examples or of those that a mixture draws; see `epoch_order`.

    Where the examples ask for neighbours, similar ones stand together.

    Args:
        examples: The training split.
        seed: The seed of the run.
        epoch: The epoch, from 0.

    Returns:
        Positions as `epoch_order` returns them, of the examples of the epoch.
    """
    order = _order_of_drawn(examples, seed, epoch) if examples.drawn else epoch_order(len(examples), seed, epoch)
    if not examples.neighbours:
        return order
    # the last 2 keeps the seeds apart from those of `_drawn`
    return with_neighbours(order[:], examples.table, examples.neighbours, np.random.default_rng([seed, epoch, 0, 2]))


def _order_of_drawn(examples: Examples, seed: int, epoch: int) -> np.ndarray:
    starts = np.cumsum([0, *(part.size for part in examples.drawn)])
    positions: np.ndarray = np.concatenate(
        [
            start + _drawn(part, number, seed, epoch)
            for number, (part, start) in enumerate(zip(examples.drawn, starts[:-1], strict=True))
        ]
    )
    order: np.ndarray = positions[epoch_order(len(positions), seed, epoch)[:]]
    return order


def _drawn(part: Drawn, number: int, seed: int, epoch: int) -> np.ndarray:
    """Return the positions of a dataset's examples in an epoch.

    Epochs take turns in an endless row of permutations of the dataset, so that none of its examples comes twice more
    often than another.
    """
    first = epoch * part.count
    rounds = range(first // part.size, -(-(first + part.count) // part.size))
    # the last 1 keeps the seeds apart from those of `epoch_order`, since numpy fills short ones with zeros
    turns = [np.random.default_rng([seed, turn, number, 1]).permutation(part.size) for turn in rounds]
    start = first - rounds.start * part.size
    return np.concatenate(turns)[start : start + part.count]


def place_of(order: Order, position: int) -> int | None:
    """Return the place of an example in an order; None where it has none, as one that a mixture leaves out."""
    if isinstance(order, Shuffled):
        return order.place_of(position)
    places = np.flatnonzero(order == position)
    return int(places[0]) if len(places) else None


def window_of(order: Order, window_size: int, epoch: int, number: int) -> Window:
    """Return window `number` of the epoch whose order is given."""
    return Window(epoch, number, order[number * window_size : (number + 1) * window_size])


def share_of(window: Window, lengths: np.ndarray, process: int, processes: int) -> np.ndarray:
    """Return this process's positions of a window: every n-th by length, so that all processes have similar work."""
    by_length = window.indices[np.argsort(lengths[window.indices], kind="stable")]
    return by_length[process::processes]
