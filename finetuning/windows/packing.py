"""Packed rows: several sequences of a causal model in one row, separated by position ids that restart.

For models whose attention cannot be restricted to sequences (see ops/dense_attention.py). It runs over whole rows.
"""

from __future__ import annotations

from bisect import bisect_left, insort

import numpy as np

_ROW_TOKENS = 512  # each sequence pays attention over the whole row
_WIDTHS_TRIED = 32


def pack_window(indices: np.ndarray, lengths: np.ndarray, max_length: int, token_budget: int) -> list[list[np.ndarray]]:
    """Pack a window's examples into rows, and the rows into micro-batches.

    Rows are filled by best fit. Their width is the one with the least padding between the longest sequence and 512
    tokens (as far as max_length and the budget allow). A micro-batch holds as many rows as the budget allows.

    Args:
        indices: Positions of the examples, int64, shape (n,), not empty.
        lengths: Tokens of every example of the split, int32.
        max_length: Upper bound of an example's tokens.
        token_budget: Upper bound of a micro-batch's padded tokens.

    Returns:
        Micro-batches; each a list of rows; each row an int64 array of the positions of its sequences.
    """
    longest = int(lengths[indices].max())
    widest = max(longest, min(max_length, token_budget, _ROW_TOKENS))
    widths = np.unique(np.linspace(longest, widest, _WIDTHS_TRIED).astype(int)).tolist()
    rows = min((best_fit(indices, lengths, width) for width in widths), key=lambda rows: _padded(rows, lengths))
    batches: list[list[np.ndarray]] = [[]]
    for row in rows:
        if batches[-1] and _padded([*batches[-1], row], lengths) > token_budget:
            batches.append([])
        batches[-1].append(row)
    return batches


def _padded(rows: list[np.ndarray], lengths: np.ndarray) -> int:
    """Return the tokens of these rows when padded to the longest."""
    return len(rows) * max(int(lengths[row].sum()) for row in rows)


def best_fit(indices: np.ndarray, lengths: np.ndarray, capacity: int) -> list[np.ndarray]:
    """Fill rows of `capacity` tokens, longest sequence first, each into the fullest row that still has room for it."""
    free: list[tuple[int, int]] = []  # (room, row), sorted
    rows: list[list[int]] = []
    for index in indices[np.argsort(-lengths[indices].astype(np.int64), kind="stable")].tolist():
        length = int(lengths[index])
        place = bisect_left(free, (length, -1))
        if place == len(free):
            rows.append([])
            room, row = capacity, len(rows) - 1
        else:
            room, row = free.pop(place)
        rows[row].append(index)
        insort(free, (room - length, row))
    return [np.array(row) for row in rows]
