"""Dense rows: layers compute real tokens alone, and attention within each sequence, so nothing is spent on padding.

Causal models are given all sequences of a micro-batch in one row; encoders are given padded rows, and their layers the
dense one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from finetuning.types import DenseTokens

if TYPE_CHECKING:
    import torch
    from torch.utils.hooks import RemovableHandle
    from transformers import PreTrainedModel

_ATTENTION = "within-sequences"  # the name that transformers looks the attention below up by
_BRIEF = 256  # tokens


def dense_tokens(attention_mask: torch.Tensor) -> DenseTokens | None:
    """The places of the tokens that an encoder's (rows, tokens) mask has as real; None where nothing is padding."""
    if bool(attention_mask.all()):
        return None
    return DenseTokens(*_places(attention_mask), attention_mask.bool()[:, None, None, :])


def causal_tokens(lengths: Sequence[int]) -> DenseTokens:
    """The places of causal sequences of these lengths that stand in one row, one after the other."""
    import torch

    sizes = torch.tensor(lengths)
    return DenseTokens(*_places((torch.arange(max(lengths)) < sizes[:, None]).long()), None)


def _places(attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    flat = attention_mask.flatten()
    spread = (flat.cumsum(0) - 1).clamp(min=0).view_as(attention_mask)
    return flat.nonzero().squeeze(1), spread


@contextmanager
def without_padding(model: PreTrainedModel, tokens: DenseTokens | None) -> Iterator[None]:
    """Lets attention be computed within each sequence, and all else in a layer on one dense row of real tokens.

    A causal model is given that row, and positions that start again. An encoder is given padded rows, and its layers
    the dense one; so embeddings, poolers and heads are the model's own code. The backward pass belongs inside, too:
    gradient checkpointing runs layers again in it.
    """
    if tokens is None:
        yield
        return
    from transformers import AttentionInterface

    hooks = _told_of_sequences(model, tokens) if tokens.real is None else _dense_layers(model, tokens)
    config: Any = model.base_model.config
    AttentionInterface.register(_ATTENTION, _attend_within_sequences)
    usual = config._attn_implementation
    config._attn_implementation = _ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = usual
        for hook in hooks:
            hook.remove()


def _told_of_sequences(model: PreTrainedModel, tokens: DenseTokens) -> list[RemovableHandle]:
    def enter(_module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return args, {**kwargs, "sequences": tokens}

    return [model.base_model.register_forward_pre_hook(enter, with_kwargs=True)]


def _dense_layers(model: PreTrainedModel, tokens: DenseTokens) -> list[RemovableHandle]:
    encoder = layers_of(model)
    if encoder is None:
        raise TypeError("this model's layers are not in a module of their own")

    def enter(_module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        padded = args[0] if args else kwargs["hidden_states"]
        dense = _pick(padded.flatten(0, 1), tokens.gather).unsqueeze(0)
        kwargs = {**kwargs, "sequences": tokens}
        return ((dense, *args[1:]), kwargs) if args else ((), {**kwargs, "hidden_states": dense})

    def leave(_module: torch.nn.Module, _args: Any, output: Any) -> Any:
        output.last_hidden_state = _pick(output.last_hidden_state.squeeze(0), tokens.spread)
        return output

    return [encoder.register_forward_pre_hook(enter, with_kwargs=True), encoder.register_forward_hook(leave)]


def layers_of(model: PreTrainedModel) -> torch.nn.Module | None:
    """The part of the encoder that holds its layers, hidden states in and out; None where there is none."""
    import torch

    parts = model.base_model.children()
    lists = torch.nn.ModuleList
    return next((part for part in parts if any(isinstance(child, lists) for child in part.children())), None)


def _attend_within_sequences(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    attention_mask: torch.Tensor | None, dropout: float = 0.0, scaling: float | None = None,
    *, sequences: DenseTokens, **_: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """transformers' attention interface: (1, heads, tokens, width) → (1, tokens, heads, width).

    Sequences are spread to padded rows for it, which costs less than attention over a dense row: a mask makes scores of
    all pairs be computed, and on a CPU dropout makes them all be there. (torch's variable-length attention has no
    dropout.)
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    rows, longest = sequences.spread.shape

    def spread(tensor: torch.Tensor) -> torch.Tensor:
        heads, width = tensor.shape[1], tensor.shape[3]
        dense = tensor.transpose(1, 2).reshape(-1, heads * width)
        return _pick(dense, sequences.spread).view(rows, longest, heads, width).transpose(1, 2)

    padded, is_causal = (spread(query), spread(key), spread(value)), sequences.real is None
    if is_causal and dropout == 0.0 and longest <= _BRIEF and query.device.type == "cpu":
        attended = _attend_briefly(*padded, scaling)
    else:
        attended, _weights = sdpa_attention_forward(
            module, *padded, sequences.real, dropout=dropout, scaling=scaling, is_causal=is_causal
        )
    return _pick(attended.flatten(0, 1).flatten(1), sequences.gather).view(1, -1, *attended.shape[2:]), None


def _attend_briefly(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None) -> torch.Tensor:
    """Causal attention over short rows, scores computed again in the backward pass instead of kept.

    On a CPU in bfloat16 it took a third to a half of the time of torch's flash attention at 60 to 157 tokens, and as
    long at 512.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        tokens = key.shape[-2]
        future = torch.full((tokens, tokens), -torch.inf, dtype=query.dtype, device=query.device).triu_(1)
        scores = torch.matmul(query * scale, key.transpose(-1, -2)) + future
        return torch.matmul(torch.softmax(scores, -1), value)

    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    attended: torch.Tensor = checkpoint(attend, query, key, value, use_reentrant=False, preserve_rng_state=False)
    return attended.transpose(1, 2)


def _pick(rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Rows at these places, as `rows[places]`, by an operation whose backward pass is fast on CPUs."""
    import torch

    return torch.nn.functional.embedding(places, rows)
