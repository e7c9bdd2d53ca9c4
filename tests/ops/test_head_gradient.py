"""Gradients of a head that are computed after the backward pass are those of cross-entropy."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from finetuning.ops import vocabulary_blocks
from finetuning.ops.head_gradient import LaterGradient, is_worth_computing_later, later_gradient_of
from finetuning.ops.vocabulary_loss import vocabulary_loss_sum

WIDTH, VOCABULARY = 16, 211
SMOOTHING = 0.25  # a number that float32 has


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of up to 37 items in float64, in tiles of some pieces."""
    monkeypatch.setattr(vocabulary_blocks, "_BLOCK_BYTES_ON_CPU", 37 * VOCABULARY * 8)
    monkeypatch.setitem(vocabulary_blocks._TILE_LOGITS, "cpu", 37 * 75)


def head_and_states(*items: int) -> tuple[torch.nn.Linear, list[torch.Tensor], list[torch.Tensor]]:
    """Return a head, the hidden states of micro-batches of so many items, and their labels."""
    torch.manual_seed(0)
    head = torch.nn.Linear(WIDTH, VOCABULARY).double()
    states = [torch.randn(n, WIDTH, dtype=torch.float64, requires_grad=True) for n in items]
    return head, states, [torch.randint(VOCABULARY, (n,)) for n in items]


def backward_of(head: torch.nn.Linear, hidden: torch.Tensor, labels: torch.Tensor) -> None:
    later = later_gradient_of(head)
    (vocabulary_loss_sum(hidden, head.weight, head.bias, labels, SMOOTHING, later) / 7).backward()


def gradients_of(head: torch.nn.Linear, states: list[torch.Tensor]) -> list[torch.Tensor | None]:
    made = [part.grad for part in (head.weight, head.bias, *states)]
    for part in (head.weight, head.bias, *states):
        part.grad = None
    return made


def expected_of(
    head: torch.nn.Linear, states: list[torch.Tensor], labels: list[torch.Tensor]
) -> list[torch.Tensor | None]:
    for hidden, wanted in zip(states, labels, strict=True):
        (cross_entropy(head(hidden), wanted, reduction="sum", label_smoothing=SMOOTHING) / 7).backward()
    return gradients_of(head, states)


@pytest.mark.parametrize("items", [(37,), (12, 5, 20), (0, 3), (37, 38)])  # 38 are more than a block
def test_they_are_those_of_cross_entropy_over_micro_batches(items: tuple[int, ...]) -> None:
    head, states, labels = head_and_states(*items)
    expected, later = expected_of(head, states, labels), LaterGradient(head, lambda: None)
    with later.in_use():
        for hidden, wanted in zip(states, labels, strict=True):
            backward_of(head, hidden, wanted)
            later.add()
    torch.testing.assert_close(gradients_of(head, states), expected, rtol=1e-12, atol=1e-12)


def test_the_gradient_takes_no_memory_before_room_was_made_behind_the_backward_pass() -> None:
    head, (first, second), labels = head_and_states(4, 5)
    made = list[bool]()
    later = LaterGradient(head, lambda: made.append(head.weight.grad is None))
    with later.in_use():
        backward_of(head, first, labels[0])
        assert head.weight.grad is None and not made
        later.add()
        kept = head.weight.grad
        backward_of(head, second, labels[1])
        later.add()
    assert made == [True] and head.weight.grad is kept is not None  # once, and added to in place


def test_a_pass_that_failed_leaves_nothing() -> None:
    head, states, labels = head_and_states(4, 5)
    expected = expected_of(head, states[1:], labels[1:])
    later = LaterGradient(head, lambda: None)
    with later.in_use():
        backward_of(head, states[0], labels[0])  # memory ran out behind it, say
    gradients_of(head, states)
    with later.in_use():
        backward_of(head, states[1], labels[1])
        later.add()
    torch.testing.assert_close(gradients_of(head, states[1:]), expected, rtol=1e-12, atol=1e-12)
    assert later_gradient_of(head) is None


def test_hidden_states_without_a_gradient_leave_it_to_the_loss() -> None:
    """No backward pass goes through them."""
    head, (hidden,), (labels,) = head_and_states(4)
    hidden.requires_grad_(False)
    (cross_entropy(head(hidden), labels, reduction="sum", label_smoothing=SMOOTHING) / 7).backward()
    expected = gradients_of(head, [])
    with LaterGradient(head, lambda: None).in_use():
        backward_of(head, hidden, labels)
    torch.testing.assert_close(gradients_of(head, []), expected, rtol=1e-12, atol=1e-12)


def test_only_the_gradient_of_a_large_trained_head_is_worth_it() -> None:
    with torch.device("meta"):
        large, small = torch.nn.Linear(640, 262_144), torch.nn.Linear(576, 49_152)
    assert is_worth_computing_later(large) and not is_worth_computing_later(small)
    assert not is_worth_computing_later(large.requires_grad_(False))
