"""What a small model answers, and other values for its weights."""

from __future__ import annotations

from typing import Any

import torch


def logits_of(model: Any) -> torch.Tensor:
    ids = torch.arange(10, 20).unsqueeze(0)
    inputs = {"decoder_input_ids": ids + 1} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=ids, **inputs).logits


def disturb(model: Any) -> None:
    """Change the trained weights, as training would."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
