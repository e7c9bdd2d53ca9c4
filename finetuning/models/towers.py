"""Parts of a multimodal model that text does not pass: its towers for pictures and sound."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SENSES = ("vision", "audio", "speech")


def towers(model: PreTrainedModel) -> list[str]:
    """Return the names of a model's towers for pictures and sound, outermost ones.

    A text gives their weights no gradient, so training them would take memory for nothing.

    Args:
        model: The model.

    Returns:
        Names of submodules; none for a model of text alone.
    """
    from transformers import PreTrainedModel as Part

    config = getattr(model, "config", None)
    others = [getattr(config, key, None) for key in getattr(config, "sub_configs", {}) if key.startswith(_SENSES)]
    found: list[str] = []
    for name, module in model.named_modules():
        is_tower = isinstance(module, Part) and any(module.config is other for other in others)
        if is_tower and not any(name.startswith(f"{outer}.") for outer in found):
            found.append(name)
    return found
