"""Which way of attention a run takes on a GPU, by what the card and the model are; attention_trial.py tries it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from finetuning.ops.attention_ways import Attend, efficient, flash, flex
from finetuning.types import Card

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_DROPOUTS = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop", "dropout_rate")  # names in configs
_SERVERS = ((8, 0), (9, 0), (10, 0))  # cards whose shared memory takes the flash kernel's backward pass of any width


@dataclass(frozen=True)
class AttentionWay:
    """A way of attention.

    Attributes:
        name: `flash`, `efficient`, `flex`, or `padded` for padded rows.
        attend: Its function; None for padded rows.
        reason: Why none of those before it, a Korean phrase; empty where there is nothing to tell.
    """

    name: str = "padded"
    attend: Attend | None = None
    reason: str = ""

    def line(self) -> str:
        """Return the Korean line of the log; empty where the model does not compute on a GPU."""
        if self.attend is None and not self.reason:
            return ""
        what = "패딩한 행으로 펼쳐 계산합니다" if self.attend is None else "이어 붙인 행에서 바로 계산합니다"
        return f"attention: {self.name}. {what}." + (f" ({self.reason})" if self.reason else "")


@dataclass(frozen=True)
class AttentionNeeds:
    """What a model asks of attention.

    Attributes:
        dtype: What attention computes in.
        width: Numbers of a head, the widest of the model.
        dropout: Probability that a weight is dropped in training.
        window: The attention window where it is shorter than the longest sequence; None for none.
    """

    dtype: torch.dtype
    width: int
    dropout: float = 0.0
    window: int | None = None


def attention_dropout(config: Any) -> float:
    """Return the probability with which attention drops a weight in training, by a model's config."""
    return float(next((found for name in _DROPOUTS if (found := getattr(config, name, None))), 0.0))


def needs_of(model: PreTrainedModel, max_length: int, precision: str) -> AttentionNeeds:
    """Return what a model asks of attention.

    Args:
        model: The model; its config is looked at.
        max_length: Tokens of the longest sequence.
        precision: Autocast's precision: `bf16`, `fp16` or `no`.

    Returns:
        What it asks.
    """
    config = model.config.get_text_config()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    window = getattr(config, "sliding_window", None)
    return AttentionNeeds(
        {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, model.dtype),
        max(width, getattr(config, "global_head_dim", None) or 0),  # Gemma 4 has wider heads in some layers
        attention_dropout(config),
        window if window is not None and window < max_length else None,
    )


def choose_way(card: Card, needs: AttentionNeeds) -> AttentionWay:
    """Choose the way of attention: the fastest whose kernel takes what the model asks for.

    Args:
        card: The card, one with a compute capability.
        needs: What the model asks.

    Returns:
        The way; padded rows, with the reasons, where none of the kernels does.
    """
    refusals = list[str]()
    for attend, refusal in (
        (flash, _why_not_flash(card, needs)),
        (efficient, _why_not_efficient(card, needs)),
        (flex, _why_not_flex(card, needs)),
    ):
        if refusal is None:
            return AttentionWay(attend.__name__, attend, ", ".join(refusals))
        refusals.append(f"{attend.__name__} 불가: {refusal}")
    return AttentionWay(reason=", ".join(refusals))


def _why_not_flash(card: Card, needs: AttentionNeeds) -> str | None:
    assert card.capability is not None
    if needs.dtype not in (torch.float16, torch.bfloat16):
        return str(needs.dtype).removeprefix("torch.")
    if card.capability < (8, 0):
        return _capability(card)
    is_wide = 192 < needs.width <= 224 or (needs.width > 224 and needs.dropout > 0)
    if needs.width > 256 or needs.width % 8 or (is_wide and card.capability not in _SERVERS):
        return _width(needs)
    return None


def _why_not_efficient(card: Card, needs: AttentionNeeds) -> str | None:
    assert card.capability is not None
    if needs.window is not None:
        return f"sliding window {needs.window:,}"
    if needs.dtype == torch.bfloat16 and card.capability < (8, 0):
        return f"bfloat16, {_capability(card)}"
    return _width(needs) if needs.width % 8 else None


def _why_not_flex(card: Card, needs: AttentionNeeds) -> str | None:
    assert card.capability is not None
    if needs.dropout > 0:
        return f"dropout {needs.dropout:g}"
    if not card.has_triton:
        return "Triton이 설치되지 않음"
    return _capability(card) if card.capability < (7, 0) else None


def _capability(card: Card) -> str:
    assert card.capability is not None
    return "compute capability {}.{}".format(*card.capability)


def _width(needs: AttentionNeeds) -> str:
    return f"head 크기 {needs.width}"
