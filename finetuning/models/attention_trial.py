"""A trial of the way of attention that was chosen: on the device, against padded rows, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from exceptions import first_line_of
from finetuning.device.oom import is_out_of_memory
from finetuning.models.attention import AttentionNeeds, AttentionWay, choose_way, needs_of
from finetuning.models.probes import REFUSALS, trial_conditions
from finetuning.ops.attention_ways import Attend, Call, flash, padded
from finetuning.ops.dense_attention import causal_tokens, dense_tokens
from finetuning.types import Card, DenseTokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The largest relative error, by dtype, that counts as rounding of attention alone.
_ROUNDING = {torch.float64: 1e-3, torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 4e-2}
_LENGTHS = (70, 5, 1, 37)  # more than the 64 tokens of a kernel's block, and a sequence of one token


def usable_way(model: PreTrainedModel, max_length: int, card: Card, runs: Callable[[Attend], object]) -> AttentionWay:
    """Choose the way of attention of a model that needs no padding, and try it where there are values.

    Args:
        model: The model, on its device. On the meta device nothing is tried, and memory is counted of padded rows where
            tensors without data cannot run the way: FlexAttention, and the memory-efficient kernel, of whose backward
            pass torch (2.13) has a wrong signature for them.
        max_length: Tokens of the longest sequence.
        card: The card.
        runs: Runs the model on a few tokens without padding, in the way that it is given.

    Returns:
        The way; padded rows where it fails, with the reason, and on anything but a CUDA card, without a word.
    """
    if card.capability is None:
        return AttentionWay()
    needs = needs_of(model, max_length, card.precision)
    way = choose_way(card, needs)
    if way.attend is None:
        return way
    if model.device.type == "meta":
        return way if way.attend is flash else replace(way, attend=None)
    failure = _failure(model, way.attend, needs, runs)
    if failure is None:
        return way
    reasons = [way.reason] if way.reason else []
    return AttentionWay(reason=", ".join([*reasons, f"{way.name} 불가: 시험해 보니 {failure}"]))


def _failure(
    model: PreTrainedModel, attend: Attend, needs: AttentionNeeds, runs: Callable[[Attend], object]
) -> str | None:
    """Return what is wrong with a way of attention, or None. Memory that runs out is raised."""
    try:
        calls = _calls(runs, needs)
        with trial_conditions(model), torch.enable_grad(), torch.autocast(model.device.type, enabled=False):
            agree = all(_agrees(call, attend, needs) for call in calls)
    except (*REFUSALS, ImportError) as error:  # a compiler's errors are RuntimeErrors
        if is_out_of_memory(error):
            raise
        return first_line_of(error).partition(". ")[0]
    return None if agree else "패딩한 행과 결과가 다름"


def _calls(runs: Callable[[Attend], object], needs: AttentionNeeds) -> list[Call]:
    """Return a call of each kind of attention that the model's layers have, with and without the model's window."""
    seen: dict[object, Call] = {}

    def see(call: Call) -> torch.Tensor:
        seen.setdefault((call.query.shape[1:], call.key.shape[1:], call.scaling), call)
        return padded(call)

    runs(see)
    return [replace(call, window=window) for call in seen.values() for window in {None, needs.window}]


def _agrees(call: Call, attend: Attend, needs: AttentionNeeds) -> bool:
    """Return whether a way computes what padded rows compute, and whether sequences do not see each other.

    Random numbers take the place of the model's. The first token's value is so large that it shows whether a token
    just within the window sees it, and one just beyond does not.
    """
    first = max(_LENGTHS[0], (call.window or 0) + 3)
    lengths, dtype = (first, *_LENGTHS[1:]), needs.dtype
    tried = replace(
        call, sequences=_sequences(lengths, call), query=_random(call.query, sum(lengths), dtype),
        key=_random(call.key, sum(lengths), dtype), value=_random(call.value, sum(lengths), dtype),
    )  # fmt: skip
    tried.value.data[0] *= call.window or 1
    expected, wanted = _outcome(tried, padded)
    found, gradients = _outcome(tried, attend)
    others = replace(tried, key=_reversed(tried.key, first), value=_reversed(tried.value, first))
    beside, _ = _outcome(others, attend)
    if needs.dropout > 0:  # its draws cannot be compared, only whether it runs
        dropped, _ = _outcome(replace(tried, dropout=needs.dropout), attend)
        if not bool(torch.isfinite(dropped).all()):
            return False
    limit = _ROUNDING[dtype]
    by_token = (found - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
    return (
        torch.equal(found[first:], beside[first:])
        and bool(by_token.max() <= limit)
        and all(
            bool((one - other).norm() <= limit * other.norm()) for one, other in zip(gradients, wanted, strict=True)
        )
    )


def _outcome(call: Call, attend: Attend) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return what a way computes, (tokens, heads, width), and the gradients of query, key and value, in float32."""
    inputs = [tensor.detach().requires_grad_() for tensor in (call.query, call.key, call.value)]
    query, key, value = inputs
    attended = attend(replace(call, query=query, key=key, value=value))
    weights = torch.linspace(-1, 1, attended.numel(), device=attended.device).view_as(attended)
    gradients = torch.autograd.grad((attended.float() * weights).sum(), inputs)
    return attended.detach().float(), [gradient.float() for gradient in gradients]


def _sequences(lengths: Sequence[int], call: Call) -> DenseTokens:
    """Return where sequences of these lengths are, on the call's device, causal or not as the call."""
    if call.is_causal:
        found = causal_tokens(lengths)
    else:
        found = dense_tokens((torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long())
    return found.mapped(lambda tensor: tensor.to(call.query.device))


def _random(like: torch.Tensor, tokens: int, dtype: torch.dtype) -> torch.Tensor:
    """Return random numbers, (tokens, heads, width), one head after the other in memory, as some models have them."""
    heads, width = like.shape[1:]
    return torch.randn(heads, tokens, width, device=like.device, dtype=dtype).transpose(0, 1)


def _reversed(tensor: torch.Tensor, first: int) -> torch.Tensor:
    """Return the tensor with the first sequence's tokens in the other order."""
    return torch.cat([tensor[:first].flip(0), tensor[first:]])
