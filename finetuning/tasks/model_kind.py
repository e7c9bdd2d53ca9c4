"""What kind of model a config describes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetuning.config.preset import Kind

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def sees_later_tokens(config: PreTrainedConfig) -> bool:
    """Return whether a model's tokens see the ones that come after them, as an encoder's do."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    sees_before_only = getattr(config, "is_decoder", False) or getattr(config, "causal", False)  # `causal` of XLM
    return config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not sees_before_only


def kind_of(config: PreTrainedConfig) -> Kind:
    """Return the kind of a model."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if getattr(config, "is_encoder_decoder", False):
        return "t5" if "t5" in config.model_type else "seq2seq"
    is_causal = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not sees_later_tokens(config)
    return "causal" if is_causal else "encoder"
