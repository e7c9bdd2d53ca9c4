"""Gradient checkpointing: recompute a layer's activations in the backward pass instead of storing them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exceptions import SettingsError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def can_recompute(model: PreTrainedModel) -> bool:
    """Return whether the architecture supports gradient checkpointing."""
    return bool(getattr(model, "supports_gradient_checkpointing", False))


def check_can_recompute(model: PreTrainedModel) -> None:
    """Check that the architecture supports gradient checkpointing.

    Args:
        model: The model.

    Raises:
        SettingsError: It does not.
    """
    if not can_recompute(model):
        raise SettingsError(
            "이 모델은 gradient checkpointing을 지원하지 않습니다.",
            where="memory.gradient_checkpointing: true",
            remedy="memory.gradient_checkpointing을 null이나 false로 두세요.",
        )


def recompute_activations(model: PreTrainedModel) -> None:
    """Turn on gradient checkpointing.

    Args:
        model: The model.

    Raises:
        SettingsError: The architecture does not support it.
    """
    check_can_recompute(model)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
