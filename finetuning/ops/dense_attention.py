"""Run a model's layers on one dense row of real tokens, so that they compute no padding.

An attention function registered with transformers keeps every token within its own sequence.
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

_ATTENTION = "within-sequences"  # key of _attend_within_sequences in transformers' AttentionInterface
_SHORT = 256  # tokens; up to this length _attend_short was measured to be faster on a CPU


def dense_tokens(attention_mask: torch.Tensor) -> DenseTokens | None:
    """Build the index maps between an encoder's padded rows and one dense row of their real tokens.

    Args:
        attention_mask: Shape (rows, tokens); 1 for a real token, 0 for padding.

    Returns:
        The maps, or None if the rows have no padding.
    """
    if bool(attention_mask.all()):
        return None
    return DenseTokens(*_index_maps(attention_mask), attention_mask.bool()[:, None, None, :])


def causal_tokens(lengths: Sequence[int]) -> DenseTokens:
    """Build the index maps for causal sequences that are concatenated in one row.

    Args:
        lengths: Tokens of each sequence, in the order of the row.

    Returns:
        The maps, without a mask of real tokens: causal attention does not need one.
    """
    import torch

    sizes = torch.tensor(lengths)
    return DenseTokens(*_index_maps((torch.arange(max(lengths)) < sizes[:, None]).long()), None)


def branching_tokens(shapes: Sequence[tuple[int, Sequence[int]]]) -> DenseTokens:
    """Build the index maps for causal sequences that share their beginnings, which stand in the row once.

    Each sequence attends to the beginning that it shares and to itself. The layers compute a shared beginning once;
    attention sees it as a part of each of its sequences.

    Args:
        shapes: Of each group of sequences, in the order of the row: tokens of the shared beginning, and tokens of each
            branch behind it. The row holds the beginning and then the branches.

    Returns:
        The maps, a padded row for each branch.
    """
    import torch

    longest = max(shared + max(branches) for shared, branches in shapes)
    spread, gather, sources, copies = [], [], [], []
    start = row = 0
    for shared, branches in shapes:
        beginning, following = torch.arange(start, start + shared), start + shared
        for number, length in enumerate(branches):
            places = torch.cat([beginning, torch.arange(following, following + length)])
            last = places[-1:].expand(longest - len(places))
            spread.append(torch.cat([places, last]))
            first = row * longest
            gather.append(torch.arange(first + (shared if number else 0), first + shared + length))
            if number and shared:
                sources.append(beginning)
                copies.append(torch.arange(first, first + shared))
            following, row = following + length, row + 1
        start = following
    repeated = (torch.cat(sources), torch.cat(copies)) if sources else None
    return DenseTokens(torch.cat(gather), torch.stack(spread), None, repeated)


def _index_maps(attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `gather` and `spread` of DenseTokens for a mask of shape (rows, tokens)."""
    flat = attention_mask.flatten()
    spread = (flat.cumsum(0) - 1).clamp(min=0).view_as(attention_mask)
    return flat.nonzero().squeeze(1), spread


@contextmanager
def without_padding(model: PreTrainedModel, tokens: DenseTokens | None) -> Iterator[None]:
    """Restrict attention to each sequence while the layers compute one dense row of real tokens.

    A causal model's input is already that row, with position ids that restart at each sequence. An encoder's input
    stays padded rows: hooks convert to the dense row before its first layer and back after its last one, so that the
    embeddings, the pooler and the head run the model's own code. Run the backward pass inside the block as well:
    gradient checkpointing runs the layers again in it.

    Args:
        model: The model to run inside the block.
        tokens: Index maps of the micro-batch. None changes nothing.
    """
    if tokens is None:
        yield
        return
    from transformers import AttentionInterface

    hooks = _pass_sequences(model, tokens) if tokens.real is None else _dense_layers(model, tokens)
    config: Any = model.base_model.config
    AttentionInterface.register(_ATTENTION, _attend_within_sequences)
    previous = config._attn_implementation
    config._attn_implementation = _ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = previous
        for hook in hooks:
            hook.remove()


def _pass_sequences(model: PreTrainedModel, tokens: DenseTokens) -> list[RemovableHandle]:
    """Hook the base model so that the attention function receives `tokens` as its `sequences` argument."""

    def enter(_module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return args, {**kwargs, "sequences": tokens}

    return [model.base_model.register_forward_pre_hook(enter, with_kwargs=True)]


def _dense_layers(model: PreTrainedModel, tokens: DenseTokens) -> list[RemovableHandle]:
    """Hook an encoder's stack of layers: padded rows → dense row on entry, dense row → padded rows on exit."""
    encoder = layers_of(model)
    if encoder is None:
        raise TypeError("this model's layers are not in a module of their own")

    def enter(_module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        padded = args[0] if args else kwargs["hidden_states"]
        dense = _to_dense(padded, tokens).unsqueeze(0)
        kwargs = {**kwargs, "sequences": tokens}
        return ((dense, *args[1:]), kwargs) if args else ((), {**kwargs, "hidden_states": dense})

    def leave(_module: torch.nn.Module, _args: Any, output: Any) -> Any:
        output.last_hidden_state = _to_padded(output.last_hidden_state.squeeze(0), tokens)
        return output

    return [encoder.register_forward_pre_hook(enter, with_kwargs=True), encoder.register_forward_hook(leave)]


def layers_of(model: PreTrainedModel) -> torch.nn.Module | None:
    """Return the submodule that holds an encoder's list of layers, or None if there is no such submodule.

    It takes hidden states and returns hidden states.
    """
    import torch

    parts = model.base_model.children()
    lists = torch.nn.ModuleList
    return next((part for part in parts if any(isinstance(child, lists) for child in part.children())), None)


def _attend_within_sequences(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    attention_mask: torch.Tensor | None, dropout: float = 0.0, scaling: float | None = None,
    *, sequences: DenseTokens, sliding_window: int | None = None, **_: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Attend within each sequence. The signature is that of transformers' AttentionInterface.

    Shapes: (1, heads, tokens, width) → (1, tokens, heads, width).

    The dense row is spread to padded rows for attention. Attention over the dense row would cost more: with a mask,
    the scores of all pairs of tokens are computed, and with dropout a CPU also stores them all. (torch's
    variable-length attention does not support dropout.)
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def spread(tensor: torch.Tensor) -> torch.Tensor:
        heads, width = tensor.shape[1], tensor.shape[3]
        padded = _to_padded(tensor.transpose(1, 2).reshape(-1, heads * width), sequences)
        return padded.view(*padded.shape[:2], heads, width).transpose(1, 2)

    longest = sequences.spread.shape[1]
    padded, mask = (spread(query), spread(key), spread(value)), sequences.real
    if _is_cut_short(module, longest, sliding_window):
        mask = _near(longest, sliding_window or 0, sequences)
    if mask is None and dropout == 0.0 and longest <= _SHORT and query.device.type == "cpu":
        attended = _attend_short(*padded, scaling)
    else:
        attended, _weights = sdpa_attention_forward(
            module, *padded, mask, dropout=dropout, scaling=scaling, is_causal=mask is None
        )
    return _to_dense(attended.flatten(2), sequences).view(1, -1, *attended.shape[2:]), None


def _is_cut_short(module: torch.nn.Module, longest: int, window: int | None) -> bool:
    """Return whether an attention window is shorter than the longest sequence.

    Args:
        module: The attention module.
        longest: Tokens of the longest sequence.
        window: Tokens that a token sees, itself included, as the module says; None for all.

    Returns:
        Whether the window leaves tokens out.

    Raises:
        TypeError: The module has a window that it does not pass on, so that it would be lost.
    """
    config: Any = getattr(module, "config", None)
    configured, kinds = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
    is_meant = configured is not None and longest > configured
    if is_meant and window is None and (kinds is None or kinds[module.layer_idx] == "sliding_attention"):
        raise TypeError("this layer does not tell its attention window")
    return window is not None and longest > window


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


def _attend_short(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None) -> torch.Tensor:
    """Compute causal attention over short rows; recompute the scores in the backward pass instead of storing them.

    On a CPU in bfloat16 this took a third to a half of the time of torch's flash attention at 60 to 157 tokens, and
    the same time at 512.
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


def _to_dense(padded: torch.Tensor, tokens: DenseTokens) -> torch.Tensor:
    """Return the real tokens of padded rows: (rows, tokens, width) → (real tokens, width).

    Each place is read once, so that the backward pass writes every row once.
    """
    flat = padded.flatten(0, 1)
    return _embedded(flat, tokens.gather) if flat.device.type == "cpu" else flat.index_select(0, tokens.gather)


def _to_padded(dense: torch.Tensor, tokens: DenseTokens) -> torch.Tensor:
    """Return real tokens as padded rows: (real tokens, width) → (rows, tokens, width). Nothing may depend on padding.

    On a GPU padding is zero: each token is written once, so that the backward pass only reads. That of a look-up, in
    which padding repeats a token, would sort the places and add them up in an order that varies.
    """
    return _embedded(dense, tokens.spread) if dense.device.type == "cpu" else _written(dense, tokens)


def _written(dense: torch.Tensor, tokens: DenseTokens) -> torch.Tensor:
    """Return real tokens as padded rows, with zeros as padding; shapes as of _to_padded."""
    (rows, longest), width = tokens.spread.shape, dense.shape[-1]
    padded = dense.new_zeros(rows * longest, width).index_copy_(0, tokens.gather, dense)
    if tokens.repeated is not None:
        sources, copies = tokens.repeated
        padded = padded.index_copy_(0, copies, dense.index_select(0, sources))
    return padded.view(rows, longest, width)


def _embedded(rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Return `rows[places]`, computed as an embedding look-up because its backward pass is faster on a CPU."""
    import torch

    return torch.nn.functional.embedding(places, rows)
