"""Dense rows whose sequences do not see each other, so that next to nothing is spent on padding.

Causal models are given packed rows; encoders are given padded ones, and their layers run on the real tokens alone.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_ROW_TOKENS = 512  # longer rows waste less, but each sequence pays attention over the whole row


def pack_window(indices: np.ndarray, lengths: np.ndarray, max_length: int, token_budget: int) -> list[list[np.ndarray]]:
    """A window's positions as micro-batches of rows, each row the positions of the sequences in it.

    Rows hold as many tokens as the longest sequence, or up to 512 where max_length and the budget allow, filled best
    fit; a micro-batch holds as many rows as the budget of padded tokens allows.
    """
    longest = int(lengths[indices].max())
    capacity = max(longest, min(max_length, token_budget, _ROW_TOKENS))
    rows = best_fit(indices, lengths, capacity)
    batches: list[list[np.ndarray]] = [[]]
    widest = 0
    for row in rows:
        widest = max(widest, int(lengths[row].sum()))
        if batches[-1] and (len(batches[-1]) + 1) * widest > token_budget:
            batches.append([])
            widest = int(lengths[row].sum())
        batches[-1].append(row)
    return batches


def best_fit(indices: np.ndarray, lengths: np.ndarray, capacity: int) -> list[np.ndarray]:
    """Fills rows of `capacity` tokens, longest sequence first, each into the row that it leaves least room in."""
    free: list[tuple[int, int]] = []  # (room, row), sorted
    rows: list[list[int]] = []
    for index in indices[np.argsort(-lengths[indices].astype(np.int64), kind="stable")].tolist():
        length = int(lengths[index])
        place = bisect_left(free, (length, -1))
        if place == len(free):
            rows.append([])
            room, row = capacity, len(rows) - 1
        else:
            room, row = free.pop(place)
        rows[row].append(index)
        insort(free, (room - length, row))
    return [np.array(row) for row in rows]


def isolates(model: PreTrainedModel) -> bool:
    """Whether this model keeps sequences of one row apart by positions that start again; found by trying.

    transformers makes the mask out of `position_ids` where there is no attention_mask and no cache; an architecture
    that does not (recurrent layers, say) would leak, so it is asked before it is relied on. What a masked sequence has
    is multiplied by zero, so of another one beside it not a bit may come through; another width rounds differently, in
    bfloat16 by more.
    """
    import torch

    ids = torch.arange(12, device=model.device).remainder(model.config.vocab_size).unsqueeze(0)
    others = torch.cat([ids[:, :5].flip(1), ids[:, 5:]], 1)
    positions = torch.cat([torch.arange(5), torch.arange(7)]).unsqueeze(0).to(model.device)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            packed = model(input_ids=ids, position_ids=positions, use_cache=False).logits[:, 5:]
            beside = model(input_ids=others, position_ids=positions, use_cache=False).logits[:, 5:]
            alone = model(input_ids=ids[:, 5:], use_cache=False).logits
    except (TypeError, ValueError):
        return False
    finally:
        model.train(was_training)
    rounding = 1e-3 if alone.dtype == torch.float32 else 5e-2
    return torch.equal(packed, beside) and bool((packed - alone).abs().max() <= rounding * alone.abs().max())


# --- encoders without padding ---

_ATTENTION = "within-sequences"  # the name that transformers looks the attention below up by


@dataclass(frozen=True)
class DenseTokens:
    """Where the real tokens of a padded batch of encoder inputs are, in one dense row and back.

    gather: (real tokens,) int64, each token's place in the flattened padded batch; spread: (rows, tokens) int64, each
    padded place's token in the dense row, the one before it where it is padding; real: (rows, 1, 1, tokens) bool.
    """

    gather: torch.Tensor
    spread: torch.Tensor
    real: torch.Tensor

    def mapped(self, convert: Callable[[torch.Tensor], torch.Tensor]) -> DenseTokens:
        """The same with each tensor converted, to another device say."""
        return DenseTokens(convert(self.gather), convert(self.spread), convert(self.real))


def dense_tokens(attention_mask: torch.Tensor) -> DenseTokens | None:
    """The places of the tokens that a (rows, tokens) mask has as real; None where nothing is padding."""
    if bool(attention_mask.all()):
        return None
    flat = attention_mask.flatten()
    spread = (flat.cumsum(0) - 1).clamp(min=0).view_as(attention_mask)
    return DenseTokens(flat.nonzero().squeeze(1), spread, attention_mask.bool()[:, None, None, :])


@contextmanager
def without_padding(model: PreTrainedModel, tokens: DenseTokens | None) -> Iterator[None]:
    """Runs the layers of the model's encoder on real tokens alone; what is before and after them sees padded rows.

    So embeddings, poolers and heads are the model's own code. Linear layers and norms run on one dense row, attention
    within each sequence. The backward pass belongs inside, too: gradient checkpointing runs layers again in it.
    """
    if tokens is None:
        yield
        return
    from transformers import AttentionInterface

    encoder = _layers_of(model)
    config: Any = model.base_model.config
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

    AttentionInterface.register(_ATTENTION, _attend_within_sequences)
    usual = config._attn_implementation
    hooks = [encoder.register_forward_pre_hook(enter, with_kwargs=True), encoder.register_forward_hook(leave)]
    config._attn_implementation = _ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = usual
        for hook in hooks:
            hook.remove()


def drops_padding(model: PreTrainedModel) -> bool:
    """Whether the model's hidden states are the same without padding; found by trying.

    Relative positions (DeBERTa, T5), windows (Longformer) and attention that is not transformers' interface are not.
    """
    import torch

    if model.config.is_encoder_decoder or _layers_of(model) is None:
        return False
    padding = model.config.pad_token_id or 0
    mask = torch.ones(3, 9, dtype=torch.long, device=model.device)
    mask[0, 4:] = mask[2, 7:] = 0
    ids = torch.arange(27, device=model.device).view(3, 9).remainder(model.config.vocab_size)
    ids = torch.where(ids == padding, ids + 1, ids).masked_fill(mask == 0, padding)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            expected = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state[mask == 1]
            with without_padding(model, dense_tokens(mask)):
                found = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state[mask == 1]
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError):
        return False
    finally:
        model.train(was_training)
    return bool((found - expected).abs().max() <= 1e-4 * expected.abs().max())


def _layers_of(model: PreTrainedModel) -> torch.nn.Module | None:
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

    Sequences are spread to padded rows for it, which costs less than attention over a dense row: on a CPU dropout
    makes every score of it be there. (torch's variable-length attention has no dropout.)
    """
    import torch

    rows, longest = sequences.spread.shape
    heads, width = query.shape[1], query.shape[3]

    def spread(tensor: torch.Tensor) -> torch.Tensor:
        dense = tensor.transpose(1, 2).reshape(-1, heads * width)
        return _pick(dense, sequences.spread).view(rows, longest, heads, width).transpose(1, 2)

    attended = torch.nn.functional.scaled_dot_product_attention(
        spread(query), spread(key), spread(value), attn_mask=sequences.real, dropout_p=dropout, scale=scaling
    )
    padded = attended.transpose(1, 2).reshape(rows * longest, heads * width)
    return _pick(padded, sequences.gather).view(1, -1, heads, width), None


def _pick(rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Rows at these places, as `rows[places]`, by an operation whose backward pass is fast on CPUs."""
    import torch

    return torch.nn.functional.embedding(places, rows)
