"""The order of very many examples, computed place by place: an array of it takes eight bytes an example and process.

A Feistel network permutes the numbers of an even number of bits; numbers that are out of range are permuted again until
they are in it (cycle walking), so each example has one place. Source: Black and Rogaway 2002.
"""

from __future__ import annotations

import numpy as np

_ROUNDS = 8
_ODD = (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53)  # of MurmurHash3's last step
_SHIFT = np.uint64(33)


class Shuffled:
    """A random order of examples, from seed and epoch alone. A slice of it is an array, as of an order in memory.

    Args:
        size: Number of examples.
        seed: The seed of the run.
        epoch: The epoch, from 0.
    """

    def __init__(self, size: int, seed: int, epoch: int) -> None:
        self._size = size
        self._keys = np.random.SeedSequence([seed, epoch]).generate_state(_ROUNDS, np.uint64)
        bits = -(-(size - 1).bit_length() // 2)
        self._half, self._mask = np.uint64(bits), np.uint64((1 << bits) - 1)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, places: slice) -> np.ndarray:
        """Return the positions of the examples at these places, int64."""
        found = np.arange(*places.indices(self._size), dtype=np.uint64)
        return self._walked(found, self._keys, is_back=False)

    def place_of(self, position: int) -> int:
        """Return the place of an example; position: its position among the examples."""
        return int(self._walked(np.array([position], dtype=np.uint64), self._keys[::-1], is_back=True)[0])

    def _walked(self, numbers: np.ndarray, keys: np.ndarray, is_back: bool) -> np.ndarray:
        numbers = self._permuted(numbers, keys, is_back)
        while len(outside := np.flatnonzero(numbers >= self._size)):
            numbers[outside] = self._permuted(numbers[outside], keys, is_back)
        return numbers.astype(np.int64)

    def _permuted(self, numbers: np.ndarray, keys: np.ndarray, is_back: bool) -> np.ndarray:
        high, low = numbers >> self._half, numbers & self._mask
        if is_back:
            high, low = low, high
        for key in keys:
            high, low = low, high ^ (_mixed(low ^ key) & self._mask)
        if is_back:
            high, low = low, high
        return (high << self._half) | low


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Mix the bits of each number, as MurmurHash3 does in its last step."""
    for factor in _ODD:
        numbers = (numbers ^ (numbers >> _SHIFT)) * np.uint64(factor)
    mixed: np.ndarray = numbers ^ (numbers >> _SHIFT)
    return mixed
