"""Run a model's layers on one dense row of real tokens, so that they compute no padding.

An attention function registered with transformers keeps every token within its own sequence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from finetuning.ops.attention_ways import Attend, Call, padded
from finetuning.ops.dense_rows import ids_to_dense, to_dense, to_padded
from finetuning.types import DenseTokens

if TYPE_CHECKING:
    import torch
    from torch.utils.hooks import RemovableHandle
    from transformers import PreTrainedModel

_KEYS_AND_VALUES = (
    ("key", "value"),
    ("k_lin", "v_lin"),
    ("k_proj", "v_proj"),
)  # names in encoders
_ATTENTION = "within-sequences"  # key of _attend_within_sequences in transformers' AttentionInterface


def dense_tokens(attention_mask: torch.Tensor, attend: Attend | None = None, multiple: int = 1) -> DenseTokens:
    """Build the index maps between an encoder's padded rows and one dense row of their real tokens.

    Args:
        attention_mask: Shape (rows, tokens); 1 for a real token, 0 for padding.
        attend: The way to compute attention; None for padded rows.
        multiple: What the dense row's length is rounded up to a multiple of. For kernels that take the bounds of
            sequences, the zeros behind the last one are a sequence, too.

    Returns:
        The maps.
    """
    import torch

    real = attention_mask.bool()[:, None, None, :]
    gather, spread, bounds = _index_maps(attention_mask)
    tokens = DenseTokens(gather, spread, bounds, real, attend=attend, multiple=multiple)
    if tokens.length == len(gather):
        return tokens
    return replace(tokens, bounds=torch.nn.functional.pad(bounds, (0, 1), value=tokens.length))


def grouped_tokens(attention_mask: torch.Tensor, groups: Sequence[tuple[int, int]], multiple: int = 1) -> DenseTokens:
    """Build the maps of dense_tokens for attention on padded rows, in which runs of rows have a width of their own.

    Args:
        attention_mask: Shape (rows, tokens); 1 for a real token, 0 for padding behind them.
        groups: First row and end of each run. They cover all rows, in order.
        multiple: What the dense row's length is rounded up to a multiple of.

    Returns:
        The maps, with those of each run.
    """
    rows = [attention_mask[start:end] for start, end in groups]
    parts = [dense_tokens(group[:, : int(group.sum(1).max())]) for group in rows]
    return replace(dense_tokens(attention_mask, None, multiple), groups=tuple(parts))


def filled_tokens(attention_mask: torch.Tensor, attend: Attend | None, multiple: int) -> DenseTokens:
    """Build the maps of dense_tokens in shapes that are the same for every number of real tokens up to a multiple.

    Args:
        attention_mask: Shape (rows, tokens); 1 for a real token, 0 for padding.
        attend: The way to compute attention, one that takes the bounds of sequences; None for padded rows.
        multiple: What the dense row's length is rounded up to a multiple of. What fills it up is a sequence of its own,
            which may have no token.

    Returns:
        The maps, filled.
    """
    import torch

    real = attention_mask.bool()[:, None, None, :]
    gather, spread, bounds = _index_maps(attention_mask)
    length = -(-len(gather) // multiple) * multiple
    behind = attention_mask.numel()
    gather = torch.nn.functional.pad(gather, (0, length - len(gather)), value=behind)
    bounds = torch.nn.functional.pad(bounds, (0, 1), value=length)
    return DenseTokens(gather, spread, bounds, real, attend=attend, multiple=multiple, is_filled=True)


def causal_tokens(lengths: Sequence[int], attend: Attend | None = None) -> DenseTokens:
    """Build the index maps for causal sequences that are concatenated in one row.

    Args:
        lengths: Tokens of each sequence, in the order of the row.
        attend: The way to compute attention; None for padded rows.

    Returns:
        The maps, without a mask of real tokens: causal attention does not need one.
    """
    import torch

    sizes = torch.tensor(lengths)
    return DenseTokens(*_index_maps((torch.arange(max(lengths)) < sizes[:, None]).long()), None, attend=attend)


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
    return DenseTokens(torch.cat(gather), torch.stack(spread), None, None, repeated)


def _index_maps(attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return `gather`, `spread` and `bounds` of DenseTokens for a mask of shape (rows, tokens)."""
    import torch

    flat = attention_mask.flatten()
    spread = (flat.cumsum(0) - 1).clamp(min=0).view_as(attention_mask)
    ends = attention_mask.sum(1).cumsum(0)
    return flat.nonzero().squeeze(1), spread, torch.nn.functional.pad(ends, (1, 0)).int()


@contextmanager
def without_padding(model: PreTrainedModel, tokens: DenseTokens | None) -> Iterator[None]:
    """Restrict attention to each sequence while the layers compute one dense row of real tokens.

    A causal model's input is already that row, with position ids that restart at each sequence. An encoder's input
    stays padded rows: hooks convert to the dense row before its first layer, or before its embeddings look up, and back
    after its last layer, so that the embeddings, the pooler and the head run the model's own code. Run the backward
    pass inside the block as well: gradient checkpointing runs the layers again in it.

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
        rows = args[0] if args else kwargs["hidden_states"]
        dense = rows if tokens.embeds else to_dense(rows, tokens).unsqueeze(0)
        kwargs = {**kwargs, "sequences": tokens}
        return ((dense, *args[1:]), kwargs) if args else ((), {**kwargs, "hidden_states": dense})

    def leave(_module: torch.nn.Module, _args: Any, output: Any) -> Any:
        states = output.last_hidden_state.squeeze(0)
        output.last_hidden_state = states[:, None] if tokens.firsts else to_padded(states, tokens)
        return output

    def look_up(_module: torch.nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (ids_to_dense(args[0], tokens),)

    tables = _tables_before(model, encoder) if tokens.embeds else []
    return [
        *(_first_tokens(encoder, tokens) if tokens.firsts else []),
        *(table.register_forward_pre_hook(look_up) for table in tables),
        encoder.register_forward_pre_hook(enter, with_kwargs=True),
        encoder.register_forward_hook(leave),
    ]


def _tables_before(model: PreTrainedModel, encoder: torch.nn.Module) -> list[torch.nn.Module]:
    """Return an encoder's embeddings but for those in its stack of layers."""
    import torch

    inside = set(encoder.modules())
    tables = [module for module in model.base_model.modules() if isinstance(module, torch.nn.Embedding)]
    return [table for table in tables if table not in inside]


def _first_tokens(encoder: torch.nn.Module, tokens: DenseTokens) -> list[RemovableHandle]:
    """Hook an encoder's last layer so that it computes the first token of each sequence, by keys and values of all.

    The layer shapes keys and values as it does what it is given. So it gets some of them in their place, and the
    attention function the true ones, as its `read` argument. Gradient checkpointing may run the layer again without
    the hook before it, which is why what that one has made is kept.
    """
    import torch

    layer = next(child for child in encoder.children() if isinstance(child, torch.nn.ModuleList))[-1]
    named = [(name.rsplit(".", 1)[-1], module) for name, module in layer.named_modules()]
    found = [[module for name, module in named if name in pair] for pair in _KEYS_AND_VALUES]
    parts = next((modules for modules in found if len(modules) == 2), None)
    if parts is None:
        raise TypeError("it is not known what computes this layer's keys and values")
    firsts, given, read = tokens.spread[:, 0], dict[str, torch.Tensor](), dict[str, torch.Tensor]()

    def enter(_module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given["all"] = args[0] if args else kwargs["hidden_states"]
        if given["all"].shape[1] != tokens.length:
            raise TypeError("this layer computes more than once")
        given["first"] = given["all"][:, firsts]
        kwargs = {**kwargs, "read": read}
        return ((given["first"], *args[1:]), kwargs) if args else ((), {**kwargs, "hidden_states": given["first"]})

    def read_all(_module: torch.nn.Module, args: tuple[Any, ...]) -> Any:
        if args[0] is not given["first"]:
            raise TypeError("this layer's keys and values are not computed of what it is given")
        return (given["all"],)

    def keep(name: str, _module: torch.nn.Module, _args: Any, output: torch.Tensor) -> torch.Tensor:
        read[name] = output.squeeze(0)
        return output[:, : len(firsts)]

    hooks = [layer.register_forward_pre_hook(enter, with_kwargs=True)]
    for kept, module in zip(("key", "value"), parts, strict=True):
        hooks += [module.register_forward_pre_hook(read_all), module.register_forward_hook(partial(keep, kept))]
    return hooks


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
    *, sequences: DenseTokens, sliding_window: int | None = None, read: dict[str, torch.Tensor] | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Attend within each sequence, in its way. The signature is that of transformers' AttentionInterface.

    Shapes: (1, heads, tokens, width) → (1, tokens, heads, width); `read`: keys and values to take,
    (tokens, width of all heads).
    """
    is_cut_short = _is_cut_short(module, sequences.spread.shape[1], sliding_window)
    query, key, value = (tensor.squeeze(0).transpose(0, 1) for tensor in (query, key, value))  # "[0]" copies gradients
    if read is not None:  # see _first_tokens
        key, value = (read.pop(name).unflatten(-1, (-1, query.shape[-1])) for name in ("key", "value"))
    window = sliding_window if is_cut_short else None
    call = Call(module, query, key, value, sequences, dropout, scaling, window)
    attend: Attend = sequences.attend or padded
    return attend(call)[None], None


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
