"""Examples that begin alike, such as conversations under one system text, as branches behind one beginning."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
    order = sorted(range(len(examples)), key=lambda number: examples[number]["input_ids"])  # alike ones are neighbours
    alike = [_alike(examples[one], examples[other]) for one, other in itertools.pairwise(order)]
    groups = sorted(_groups(order, alike), key=lambda group: min(group.numbers))
    rows = [_joined([examples[number] for number in sorted(group.numbers)], group.shared) for group in groups]
    return rows if len(rows) < len(examples) else list(examples)


@dataclass(frozen=True)
class _Group:
    """Numbers of examples, and how many tokens they share."""

    numbers: list[int]
    shared: int


def _groups(order: Sequence[int], alike: Sequence[int]) -> Iterator[_Group]:
    """Divide the sorted examples where neighbours share less than half of what one of them shares on its other side.

    So one example that has only a header in common with many that share a long text does not take that from them.

    Args:
        order: Numbers of the examples, sorted by their tokens.
        alike: How many tokens each shares with the next.

    Yields:
        The groups; the last shared token is in every branch, so it is not counted.
    """
    numbers, shared = [order[0]], 0
    for place, (number, common) in enumerate(zip(order[1:], alike, strict=True)):
        beside = max([*alike[max(0, place - 1) : place], *alike[place + 1 : place + 2]], default=0)
        if common <= _FEWEST or 2 * common < beside:
            yield _Group(numbers, max(0, shared - 1))
            numbers, shared = [number], 0
        else:
            numbers, shared = [*numbers, number], min(shared or common, common)
    yield _Group(numbers, max(0, shared - 1))


def _joined(group: list[Mapping[str, Any]], shared: int) -> Mapping[str, Any]:
    branches = [len(example["input_ids"]) - shared for example in group]
    joined = {
        name: [*group[0][name][:shared], *(value for example in group for value in example[name][shared:])]
        for name in ("input_ids", "trained")
    }
    return {**group[0], **joined, "branches": [shared, *branches]}


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> int:
    """Return how many tokens at the beginning two examples have, untrained, at least one before the end of each."""
    pairs = zip(one["input_ids"][:-1], other["input_ids"][:-1], one["trained"], other["trained"], strict=False)
    differs = (place for place, (a, b, *trained) in enumerate(pairs) if a != b or any(trained))
    return next(differs, min(len(one["input_ids"]), len(other["input_ids"])) - 1)
