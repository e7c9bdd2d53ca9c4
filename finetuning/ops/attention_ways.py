"""The ways to compute attention within the sequences of one dense row.

`padded` runs everywhere: it spreads the row to padded rows. The others need kernels of a GPU, and spread nothing. Which
one a run takes is decided in models/attention.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from finetuning.ops.dense_rows import by_head, can_be_by_head, to_dense, to_padded
from finetuning.ops.dropout import dropped
from finetuning.types import DenseTokens

if TYPE_CHECKING:
    import torch

_SHORT = 256  # tokens; up to this length _attend_by_products was measured to be faster on a CPU
_CAUSAL, _NOT_CAUSAL = 1, 0  # masks of torch's memory-efficient kernel


@dataclass(frozen=True)
class Call:
    """What attention is computed of.

    Attributes:
        module: The attention module, for its number of queries' heads to a key's head.
        query: Shape (real tokens, heads, width), or (sequences, heads, width), of the first token of each.
        key, value: Shape (real tokens, heads of keys, width).
        sequences: Where the sequences are in the row. Without a mask of real tokens attention is causal.
        dropout: Probability that a weight is dropped.
        scaling: Factor of the scores; None for one over the root of the width.
        window: Tokens that a token sees, itself included, to each side (under causal attention to the left); None for
            the whole sequence.
    """

    module: Any
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    sequences: DenseTokens
    dropout: float = 0.0
    scaling: float | None = None
    window: int | None = None

    @property
    def is_of_firsts(self) -> bool:
        """Whether only the first tokens of sequences ask; where those are all tokens, it is the same."""
        return len(self.query) != len(self.key)

    @property
    def is_causal(self) -> bool:
        """Whether a token sees none after it."""
        return self.sequences.real is None

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return self.sequences.spread.shape[1]

    @property
    def longest_in_row(self) -> int:
        """Tokens of the longest sequence of the row, where what fills the row up is one."""
        sequences = self.sequences
        if sequences.is_filled:  # the same for all rows of this shape
            return max(self.longest, sequences.multiple)
        return max(self.longest, sequences.length - len(sequences.gather))


Attend = Callable[[Call], "torch.Tensor"]  # → (real tokens, heads, width)


# --- padded rows ---


def padded(call: Call) -> torch.Tensor:
    """Attend on padded rows, each group of rows padded to its own longest."""
    import torch

    groups = call.sequences.groups
    if not groups:
        return _padded_alike(call)
    sizes = [group.length for group in groups]
    asked = [len(group.spread) for group in groups] if call.is_of_firsts else sizes
    queries, keys, values = (
        tensor[: sum(lengths)].split(lengths)
        for tensor, lengths in ((call.query, asked), (call.key, sizes), (call.value, sizes))
    )
    attended = [
        _padded_alike(replace(call, query=query, key=key, value=value, sequences=group))
        for query, key, value, group in zip(queries, keys, values, groups, strict=True)
    ]
    filling = len(call.query) - sum(asked)  # what fills the row up, which nothing reads
    return torch.cat([*attended, attended[0].new_zeros(filling, *attended[0].shape[1:])])


def _padded_alike(call: Call) -> torch.Tensor:
    """Attend on rows that are padded to the longest of all, by the kernel that torch chooses.

    Attention over the dense row itself would cost more: with a mask, the scores of all pairs of tokens are computed,
    and with dropout a CPU also stores them all.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    sequences, is_causal = call.sequences, call.is_causal
    by_products = call.window is None and _is_quicker_by_products(call)
    is_by_head = by_products and can_be_by_head(sequences)

    def spread(tensor: torch.Tensor) -> torch.Tensor:
        heads, shape = tensor.shape[1], sequences.spread.shape
        if is_by_head:
            return to_padded(tensor.flatten(0, 1), by_head(sequences, heads)).view(shape[0], heads, shape[1], -1)
        return to_padded(tensor.flatten(1), sequences).view(*shape, heads, -1).transpose(1, 2)

    query = call.query[:, :, None] if call.is_of_firsts else spread(call.query)
    rows, mask = (query, spread(call.key), spread(call.value)), sequences.real
    if call.window is not None:
        mask, is_causal = _near(call.longest, call.window, sequences), False
        mask = mask[:, :, :1] if call.is_of_firsts else mask
    elif sequences.is_whole:
        mask = None
    if is_causal and by_products:
        attended = _attend_by_products(*rows, _future(rows[1]), call)
    elif not is_causal and by_products:
        attended = _attend_by_products(*rows, None if mask is None else _added(mask, call), call)
    else:
        attended, _weights = sdpa_attention_forward(
            call.module, *rows, mask, dropout=call.dropout, scaling=call.scaling, is_causal=is_causal
        )
    if call.is_of_firsts:
        return attended[:, 0]
    if is_by_head:
        by_heads = attended.transpose(1, 2).flatten(0, 1)
        return to_dense(by_heads, by_head(sequences, attended.shape[2])).view(-1, *attended.shape[2:])
    return to_dense(attended.flatten(2), sequences).view(-1, *attended.shape[2:])


def _is_quicker_by_products(call: Call) -> bool:
    """Return whether a CPU attends faster by `_attend_by_products` than by torch's kernel; it says where."""
    if call.query.device.type != "cpu":
        return False
    if call.is_causal:
        return call.dropout == 0.0 and call.longest <= _SHORT
    is_trained = call.query.requires_grad and call.query.itemsize == 2
    return call.dropout > 0.0 or (is_trained and call.longest <= _SHORT)


def _near(longest: int, window: int, sequences: DenseTokens) -> torch.Tensor:
    """Return which tokens see which: those less than `window` tokens away, and under causal attention not after them.

    Shape: (rows or 1, 1, longest, longest), bool.
    """
    import torch

    places = torch.arange(longest, device=sequences.spread.device)
    distance = places[:, None] - places
    if sequences.real is None:
        return ((distance >= 0) & (distance < window))[None, None]
    return sequences.real & (distance.abs() < window)


def _attend_by_products(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, added: torch.Tensor | None, call: Call
) -> torch.Tensor:
    """Compute attention on a CPU by plain products.

    `added` is 0, or minus infinity where a token is not seen; None where every token is.

    Without dropout the scores are computed again in the backward pass instead of stored: over short causal rows in
    bfloat16 this took a third to a half of the time of torch's flash attention at 60 to 157 tokens, and the same time
    at 512. Of rows that see both sides torch's backward pass is slow in 16 bits: this took a fifth of the time at 12
    tokens, a half at 64 and 128, and nine tenths at 256; in float32, where torch takes less, it is not used for them.
    With dropout a CPU has no fused kernel, and torch's own way takes more passes over the scores, and draws a
    Bernoulli number for each.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        scores = torch.matmul(query * scale, key.transpose(-1, -2))
        scores = scores if added is None else scores + added
        return torch.matmul(dropped(torch.softmax(scores, -1), call.dropout), value)

    scale = call.scaling if call.scaling is not None else query.shape[-1] ** -0.5
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    if call.dropout > 0.0:
        return attend(query, key, value).transpose(1, 2)
    attended: torch.Tensor = checkpoint(attend, query, key, value, use_reentrant=False, preserve_rng_state=False)
    return attended.transpose(1, 2)


def _future(key: torch.Tensor) -> torch.Tensor:
    """Return what causal attention adds to scores: minus infinity where a token is later, (tokens, tokens)."""
    import torch

    tokens = key.shape[-2]
    return torch.full((tokens, tokens), -torch.inf, dtype=key.dtype, device=key.device).triu_(1)


def _added(mask: torch.Tensor, call: Call) -> torch.Tensor:
    """Return what a mask adds to scores: 0, or minus infinity where a token is not seen. Made once a micro-batch."""
    import torch

    made, dtype = call.sequences.made, call.query.dtype
    if dtype not in made:
        made[dtype] = torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, -torch.inf)
    found: torch.Tensor = made[dtype]
    return found


# --- kernels that take the bounds of sequences ---


def flash(call: Call) -> torch.Tensor:
    """Attend by torch's flash kernel, in 16 bits, with windows, dropout and fewer heads of keys.

    It is the kernel of torch.nn.attention.varlen, whose function leaves out the kernel's dropout.
    """
    import torch

    query, key, value = _of_one_dtype(call)
    reach = None if call.window is None else call.window - 1
    attended: torch.Tensor = torch.ops.aten._flash_attention_forward(
        query, key, value, call.sequences.bounds, call.sequences.bounds, call.longest_in_row, call.longest_in_row,
        call.dropout, call.is_causal, False, scale=call.scaling,
        window_size_left=reach, window_size_right=0 if call.is_causal else reach,
    )[0]  # fmt: skip
    return attended


def efficient(call: Call) -> torch.Tensor:
    """Attend by torch's memory-efficient kernel, in any precision, with dropout and without windows.

    torch's backward pass of it does not take the window that the kernel itself has.
    """
    import torch

    if call.window is not None:
        raise ValueError("the memory-efficient kernel has no backward pass with a window")
    query, key, value = _of_one_dtype(call)
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    attended: torch.Tensor = torch.ops.aten._efficient_attention_forward(
        query[None], key[None], value[None], None, call.sequences.bounds, call.sequences.bounds,
        call.longest_in_row, call.longest_in_row, call.dropout, _CAUSAL if call.is_causal else _NOT_CAUSAL,
        compute_log_sumexp=True, scale=call.scaling,
    )[0]  # fmt: skip
    return attended[0]


def flex(call: Call) -> torch.Tensor:
    """Attend by FlexAttention, which Triton compiles, in any precision, with windows and without dropout."""
    if call.dropout > 0.0:
        raise ValueError("FlexAttention has no dropout")
    attend, make_mask = _flex_functions(call.query.device.type)
    made = call.sequences.made
    if call.window not in made:  # once a micro-batch, and not in each layer
        tokens = call.query.shape[0]
        made[call.window] = make_mask(_sees(call), None, None, tokens, tokens, device=call.query.device)
    query, key, value = (tensor.transpose(0, 1)[None] for tensor in _of_one_dtype(call))
    attended: torch.Tensor = attend(
        query, key, value, block_mask=made[call.window], scale=call.scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip
    return attended[0].transpose(0, 1)


@functools.cache
def _flex_functions(device: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return FlexAttention and what makes its mask, compiled for any shape; a CPU has no backward pass of that."""
    import torch
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    if device == "cpu":
        return flex_attention, create_block_mask
    return torch.compile(flex_attention, dynamic=True), torch.compile(create_block_mask, dynamic=True)


def _sees(call: Call) -> Callable[..., torch.Tensor]:
    """Return FlexAttention's function of whether a token of the row sees another."""
    import torch

    sequences = call.sequences
    missing = sequences.length - len(sequences.gather)
    # the sequence of each token, counted on the device, without a wait; what fills the row up is one more
    sequence = torch.nn.functional.pad(sequences.gather // call.longest, (0, missing), value=len(sequences.spread))
    window, is_causal = call.window, call.is_causal

    def sees(_row: torch.Tensor, _head: torch.Tensor, of: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        found = sequence[of] == sequence[at]
        if is_causal:
            found = found & (at <= of)
        return found if window is None else found & ((of - at).abs() < window)

    return sees


def _of_one_dtype(call: Call) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return query, key and value in the dtype of autocast, which does not know these kernels, or else of the value."""
    import torch

    device = call.query.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else call.value.dtype
    return call.query.to(dtype), call.key.to(dtype), call.value.to(dtype)
