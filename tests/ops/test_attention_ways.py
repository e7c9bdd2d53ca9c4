"""Every way of attention computes what padded rows compute, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finetuning.ops.attention_ways import Attend, Call, efficient, flash, flex, padded
from finetuning.ops.dense_attention import causal_tokens, dense_tokens, grouped_tokens
from tests.support.attention_kernels import kernels_on_cpu


@pytest.fixture(autouse=True, scope="module")
def kernels() -> Iterator[None]:
    with kernels_on_cpu():
        yield


def call_of(lengths: list[int], is_causal: bool, heads: int, groups: int, multiple: int = 1, **options: Any) -> Call:
    """A call in float64, with the heads of a transposed view; an encoder's row may be filled up to a multiple."""
    random = torch.Generator().manual_seed(sum(lengths))
    if is_causal:
        sequences: Any = causal_tokens(lengths)
    else:
        mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        sequences = dense_tokens(mask.long(), multiple=multiple)

    def made(heads: int) -> torch.Tensor:
        return torch.randn(heads, sequences.length, 8, dtype=torch.float64, generator=random).transpose(0, 1)

    module = SimpleNamespace(num_key_value_groups=groups)
    return Call(module, made(heads), made(heads // groups), made(heads // groups), sequences, **options)


def outcome(attend: Attend, call: Call) -> list[torch.Tensor]:
    """What a way computes, and its gradients by query, key and value, of the real tokens."""
    inputs = [tensor.detach().clone().requires_grad_() for tensor in (call.query, call.key, call.value)]
    query, key, value = inputs
    attended = attend(replace(call, query=query, key=key, value=value))
    assert attended.shape == call.query.shape and bool(attended.isfinite().all())
    tokens = len(call.sequences.gather)
    gradients = torch.autograd.grad((attended[:tokens] * torch.arange(8)).pow(2).sum(), inputs)
    assert not any(bool(one[tokens:].any()) for one in gradients)  # what fills the row up has no part in them
    return [one[:tokens] for one in (attended.detach(), *gradients)]


LENGTHS = st.lists(st.integers(1, 20), min_size=2, max_size=5).filter(lambda found: len(set(found)) > 1)


@settings(max_examples=25)
@given(LENGTHS, st.booleans(), st.sampled_from([(4, 1), (4, 2), (2, 2)]), st.sampled_from([None, 1, 3, 12]),
       st.sampled_from([None, 0.3]), st.sampled_from([1, 16, 32]))  # fmt: skip
def test_every_way_computes_what_padded_rows_compute(
    lengths: list[int], is_causal: bool, heads: tuple[int, int], window: int | None, scaling: float | None,
    multiple: int,
) -> None:  # fmt: skip
    call = call_of(lengths, is_causal, *heads, multiple=multiple, window=window, scaling=scaling)
    expected = outcome(padded, call)
    for attend in (flash, flex, *([efficient] if window is None else [])):
        for found, wanted in zip(outcome(attend, call), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-8, msg=attend.__name__)


@settings(max_examples=25)
@given(LENGTHS, st.data(), st.sampled_from([None, 3]), st.sampled_from([1, 16]), st.booleans())
def test_groups_of_rows_compute_what_all_rows_compute(
    lengths: list[int], data: st.DataObject, window: int | None, multiple: int, is_mixed: bool
) -> None:
    call = call_of(lengths, False, 4, 2, multiple=multiple, window=window)
    ends = sorted(data.draw(st.sets(st.integers(1, len(lengths) - 1), min_size=1)))
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    grouped = grouped_tokens(mask, list(zip([0, *ends], [*ends, len(lengths)], strict=True)), multiple)
    for found, wanted in zip(outcome(padded, replace(call, sequences=grouped)), outcome(padded, call), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
    if is_mixed:  # norms of queries and keys are computed in float32
        lower = replace(call, query=call.query.float(), key=call.key.float(), value=call.value.bfloat16())
        with torch.autocast("cpu", torch.bfloat16):
            assert padded(replace(lower, sequences=grouped)).dtype == padded(lower).dtype == torch.bfloat16


def test_a_kernel_computes_in_the_dtype_of_autocast() -> None:
    """Norms of queries and keys are computed in float32, and the kernels do not know autocast."""
    call = call_of([7, 3], True, 4, 2)
    call = replace(call, query=call.query.float(), key=call.key.float(), value=call.value.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        found = [attend(call) for attend in (padded, flash, efficient, flex)]
    assert {one.dtype for one in found} == {torch.bfloat16}
    for one in found[1:]:
        torch.testing.assert_close(one, found[0], rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("lengths", [[7, 3, 12], [5, 5], [300, 20]])
@pytest.mark.parametrize("is_causal", [True, False])
def test_half_precision_trains_by_the_gradients_of_full_precision(lengths: list[int], is_causal: bool) -> None:
    exact = call_of(lengths, is_causal, 4, 2)
    halves = (part.bfloat16() for part in (exact.query, exact.key, exact.value))
    rounded = replace(exact, **dict(zip(("query", "key", "value"), halves, strict=True)))
    for found, wanted in zip(outcome(padded, rounded), outcome(padded, exact), strict=True):
        assert found.dtype == torch.bfloat16
        assert float((found - wanted).norm() / wanted.norm()) < 2e-2


def test_what_a_kernel_does_not_do_is_refused() -> None:
    call = call_of([7, 3], True, 4, 2)
    with pytest.raises(ValueError, match="window"):
        efficient(replace(call, window=2))
    with pytest.raises(ValueError, match="dropout"):
        flex(replace(call, dropout=0.1))
    for attend in (flash, efficient):
        torch.manual_seed(0)
        assert not torch.equal(attend(replace(call, dropout=0.5)), attend(call))
