"""How far each weight of a model is below its head, found by the model's structure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exceptions import SettingsError
from finetuning.models.adapters import text_stacks

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def layers_below_head(model: PreTrainedModel) -> dict[str, int]:
    """Count how many layers each weight is below the head.

    The head, and whatever else comes after the blocks, is 0; the last block is 1, the first of n blocks n, embeddings
    are n + 1. An encoder and a decoder are counted apart. A head that is tied to the embeddings is counted as these.

    Args:
        model: The model.

    Returns:
        The number by the weight's name.

    Raises:
        SettingsError: The model has no repeated blocks.
    """
    import torch

    stacks = text_stacks(model)
    if not stacks:
        raise SettingsError(
            "이 모델에서 반복되는 층(block)을 찾지 못해 층마다 다른 학습률을 쓸 수 없습니다.",
            where="training.layerwise_lr_decay",
            remedy="training.layerwise_lr_decay를 1로 두세요.",
        )
    most = max(len(stack) for stack in stacks.values())
    of_block = {
        f"{name}.{number}.": len(stack) - number for name, stack in stacks.items() for number in range(len(stack))
    }
    head = model.get_output_embeddings()
    of_head = set() if head is None else {id(parameter) for parameter in head.parameters()}
    of_embeddings = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, torch.nn.Embedding)
        for parameter in module.parameters()
    }
    found: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        block = next((depth for prefix, depth in of_block.items() if name.startswith(prefix)), None)
        is_embedding = id(parameter) in of_embeddings or ("embed" in name and id(parameter) not in of_head)
        found[name] = block if block is not None else most + 1 if is_embedding else 0
    return found
