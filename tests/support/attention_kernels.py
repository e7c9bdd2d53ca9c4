"""Torch's attention kernels that take the bounds of sequences, computed on the CPU by their definition.

Torch has them for CUDA alone. Under their own names and signatures they show, with torch's own formulas of the backward
pass, that the program calls them as they are meant to be called.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch.nn.attention import flex_attention


@contextmanager
def kernels_on_cpu() -> Iterator[None]:
    """Give the kernels to the CPU within the block, and FlexAttention's backward pass, which it has and refuses."""
    with mock.patch.object(flex_attention, "_validate_device"), _bounds_on_cpu():
        yield


@contextmanager
def _bounds_on_cpu() -> Iterator[None]:
    library = torch.library.Library("aten", "IMPL")
    library.impl("_flash_attention_forward", _flash, "CPU")
    library.impl("_flash_attention_backward", _flash_backward, "CPU")
    library.impl("_efficient_attention_forward", _efficient, "CPU")
    library.impl("_efficient_attention_backward", _efficient_backward, "CPU")
    # torch's own for tensors without data lacks an argument (2.13)
    library.impl("_efficient_attention_backward", _without_data, "Meta", allow_override=True)
    try:
        yield
    finally:
        library._destroy()


def _flash(
    query: Any, key: Any, value: Any, cum_q: Any, cum_k: Any, max_q: int, max_k: int, dropout: float, is_causal: bool,
    return_debug_mask: bool, *, scale: float | None = None, window_size_left: int | None = None,
    window_size_right: int | None = None, **_: Any,
) -> Any:  # fmt: skip
    assert query.dtype in (torch.float16, torch.bfloat16, torch.float64)  # as the kernel; the last for exact tests
    _check_bounds(query, cum_q, max_q)
    sees = _window(window_size_left, 0 if is_causal else window_size_right)
    attended = _forward(query, key, value, cum_q, dropout, scale, sees)
    empty = torch.empty(0)
    return attended, empty, torch.zeros(2, dtype=torch.uint64), empty, empty


def _flash_backward(
    gradient: Any, query: Any, key: Any, value: Any, out: Any, lse: Any, cum_q: Any, cum_k: Any, max_q: int, max_k: int,
    dropout: float, is_causal: bool, rng_state: Any, unused: Any, *, scale: float | None = None,
    window_size_left: int | None = None, window_size_right: int | None = None,
) -> Any:  # fmt: skip
    sees = _window(window_size_left, 0 if is_causal else window_size_right)
    return _backward(gradient, query, key, value, cum_q, scale, sees)


def _efficient(
    query: Any, key: Any, value: Any, bias: Any, cum_q: Any, cum_k: Any, max_q: int, max_k: int, dropout: float,
    mask_type: int, compute_log_sumexp: bool = False, *, scale: float | None = None, window_size: int | None = None,
    **_: Any,
) -> Any:  # fmt: skip
    assert compute_log_sumexp  # the backward pass needs it
    assert window_size is None  # torch's backward pass does not take it
    assert query.shape[2] == key.shape[2]
    assert bias is None and len(query) == 1
    _check_bounds(query[0], cum_q, max_q)
    attended = _forward(query[0], key[0], value[0], cum_q, dropout, scale, _window(None, 0 if mask_type else None))
    seed = torch.zeros((), dtype=torch.long)
    return attended[None], torch.empty(0), seed, seed.clone(), max_q, max_k


def _efficient_backward(
    gradient: Any, query: Any, key: Any, value: Any, bias: Any, out: Any, cum_q: Any, cum_k: Any, max_q: int,
    max_k: int, lse: Any, dropout: float, seed: Any, offset: Any, mask_type: int, bias_requires_grad: bool, *,
    scale: float | None = None, **_: Any,
) -> Any:  # fmt: skip
    sees = _window(None, 0 if mask_type else None)
    found = _backward(gradient[0], query[0], key[0], value[0], cum_q, scale, sees)
    return (*(one[None] for one in found), torch.empty(0))


def _without_data(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> Any:
    return *(torch.empty_like(one) for one in (query, key, value)), torch.empty((), device=query.device)


def _check_bounds(query: Any, bounds: Any, longest: int) -> None:
    """Check what a kernel would read beyond its memory for."""
    assert bounds.dtype == torch.int32
    assert (int(bounds[0]), int(bounds[-1])) == (0, len(query))
    assert int(bounds.diff().max()) <= longest
    assert query.shape[-1] % 8 == 0


def _window(left: int | None, right: int | None) -> Any:
    """Which tokens see which: `left` before them and `right` after them at most; None or -1 for all."""

    def sees(tokens: int) -> torch.Tensor:
        ahead = torch.arange(tokens) - torch.arange(tokens)[:, None]
        found = torch.ones(tokens, tokens, dtype=torch.bool)
        if left is not None and left >= 0:
            found &= ahead >= -left
        if right is not None and right >= 0:
            found &= ahead <= right
        return found

    return sees


def _parts(bounds: Any, *tensors: Any) -> Iterator[Any]:
    """The tokens of each sequence, heads first: (heads, tokens, width)."""
    lengths = bounds.diff().tolist()
    yield from zip(*([one.transpose(0, 1) for one in tensor.split(lengths)] for tensor in tensors), strict=True)


def _weights(query: Any, key: Any, scale: float | None, sees: Any) -> Any:
    factor = scale if scale is not None else 1 / math.sqrt(query.shape[-1])
    scores = (query.double() @ key.double().transpose(-1, -2)) * factor
    return scores.masked_fill(~sees(query.shape[1]), -torch.inf).softmax(-1), factor


def _forward(query: Any, key: Any, value: Any, bounds: Any, dropout: float, scale: float | None, sees: Any) -> Any:
    groups, attended = query.shape[1] // key.shape[1], []
    for q, k, v in _parts(bounds, query, key, value):
        k, v = k.repeat_interleave(groups, 0), v.repeat_interleave(groups, 0)
        weights, _ = _weights(q, k, scale, sees)
        attended.append((torch.dropout(weights, dropout, True) @ v.double()).transpose(0, 1))
    return torch.cat(attended).to(query.dtype).contiguous()


def _backward(gradient: Any, query: Any, key: Any, value: Any, bounds: Any, scale: float | None, sees: Any) -> Any:
    groups, found = query.shape[1] // key.shape[1], []
    for g, q, k, v in _parts(bounds, gradient.double(), query, key, value):
        whole_k, whole_v = k.repeat_interleave(groups, 0).double(), v.repeat_interleave(groups, 0).double()
        weights, factor = _weights(q, whole_k, scale, sees)
        of_weights = g @ whole_v.transpose(-1, -2)
        of_scores = weights * (of_weights - (of_weights * weights).sum(-1, keepdim=True)) * factor
        of_key, of_value = of_scores.transpose(-1, -2) @ q.double(), weights.transpose(-1, -2) @ g
        heads = (len(k), groups, *k.shape[1:])
        parts = (of_scores @ whole_k, of_key.view(heads).sum(1), of_value.view(heads).sum(1))
        found.append([one.transpose(0, 1) for one in parts])
    return tuple(torch.cat(side).to(query.dtype).contiguous() for side in zip(*found, strict=True))
