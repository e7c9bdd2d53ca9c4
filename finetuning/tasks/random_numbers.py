"""Random numbers of whole batches that do not depend on which examples a batch has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetuning.types import RandomKey

if TYPE_CHECKING:
    import numpy as np


def uniform(key: RandomKey, kind: int, rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Draw a number in [0, 1) for each place of each row.

    It is the finaliser of SplitMix64 (Steele et al. 2014) over the row and then the place: a counter in the place of a
    generator's state, so that a batch is drawn at once and a row alone has the numbers that it has among others.

    Args:
        key: Seed and epoch.
        kind: What is drawn; each kind has numbers of its own.
        rows: Number of each example's row, int64.
        places: A number within the row, int64; broadcast with `rows`.

    Returns:
        float64, in the shape of `rows` and `places` together.
    """
    import numpy as np

    (start,) = np.random.SeedSequence([key.seed, key.epoch, kind]).generate_state(1, np.uint64)
    mixed = _mix(_mix(start + rows.astype(np.uint64)) + places.astype(np.uint64))
    return np.asarray(mixed >> np.uint64(11)) * 2.0**-53


def _mix(numbers: np.ndarray) -> np.ndarray:
    """Return a one-to-one scrambling of uint64 numbers."""
    import numpy as np

    numbers = numbers * np.uint64(0x9E3779B97F4A7C15)
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(numbers ^ (numbers >> np.uint64(31)))
