"""Examples that begin alike, such as conversations under one system text, as branches behind one beginning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_FEWEST = 16  # shared tokens that are worth a fork: attention copies them into the padded row of each branch


def joined_by_beginning(examples: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Join the examples of a micro-batch that begin with the same untrained tokens.

    Args:
        examples: Rows with `input_ids` and `trained`, of one length each.

    Returns:
        Rows in which each group is one, in the order of its first example: the shared tokens, and then each example's
        others as a branch. `branches` holds the number of shared tokens and of each branch. The last shared token
        stands in every branch, since it predicts the first token of the branch. The examples as they are, where no two
        begin alike.
    """
    groups: dict[tuple[int, ...], list[Mapping[str, Any]]] = {}
    for number, example in enumerate(examples):
        groups.setdefault(_key(example, number), []).append(example)
    rows = [row for group in groups.values() for row in _joined(group)]
    return rows if len(rows) < len(examples) else list(examples)


def _key(example: Mapping[str, Any], number: int) -> tuple[int, ...]:
    """Return the first tokens of an example that may share them, and for another what no example has."""
    first = _FEWEST + 1
    may_share = len(example["input_ids"]) > first and not any(example["trained"][:first])
    return tuple(example["input_ids"][:first]) if may_share else (-1, number)


def _joined(group: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    shared = 0 if len(group) == 1 else _alike(group) - 1
    branches = [len(example["input_ids"]) - shared for example in group]
    joined = {
        name: [*group[0][name][:shared], *(value for example in group for value in example[name][shared:])]
        for name in ("input_ids", "trained")
    }
    return [{**group[0], **joined, "branches": [shared, *branches]}]


def _alike(group: list[Mapping[str, Any]]) -> int:
    """Return how many tokens at the beginning all examples have, untrained, at least one before the end of each."""
    first = group[0]["input_ids"]
    most = min(len(example["input_ids"]) for example in group) - 1
    for place in range(most):
        if any(one["input_ids"][place] != first[place] or one["trained"][place] for one in group):
            return place
    return most
