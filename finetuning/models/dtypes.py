"""The dtypes of a model's weights: those that stay as they are beside an adapter, and those that are trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetuning.config.schema import Settings
from finetuning.device.precision import autocast_precision
from finetuning.models.adapters import METHODS

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def base_dtype(settings: Settings) -> str:
    """Return torch's name of the dtype that a base is loaded in.

    Beside an adapter the base does not change. Where the run computes in bfloat16 it is loaded in that: it takes half
    of float32's memory, and is not cast anew for each micro-batch. (Autocast keeps the cast of a trained weight, not of
    a frozen one.) In fp16 it stays as it is, since the hidden states, which add up from layer to layer, would be
    float16. With an extended vocabulary it stays, too, as the embedding is trained.

    Args:
        settings: The settings in force.

    Returns:
        str: `model.dtype`, or `bfloat16`.
    """
    stays = METHODS[settings.model.adapter.method].adds_weights and settings.model.extend_vocabulary is None
    return "bfloat16" if stays and autocast_precision(settings) == "bf16" else settings.model.dtype


def trained_dtype(settings: Settings) -> str:
    """Return torch's name of the dtype that weights are trained in.

    An adapter and the heads beside it are float32 whatever the base is: they take little memory, and small updates
    count.
    """
    return "float32" if METHODS[settings.model.adapter.method].adds_weights else settings.model.dtype


def cast_trained(model: PreTrainedModel, settings: Settings) -> None:
    """Cast what is trained beside a base to `trained_dtype`, in place; adapters are made in their layers' dtype."""
    import torch

    if not METHODS[settings.model.adapter.method].adds_weights:
        return
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(getattr(torch, trained_dtype(settings)))
