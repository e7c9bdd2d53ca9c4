"""The matrices of a model's layers, which Muon is for; embeddings and heads are none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exceptions import SettingsError
from finetuning.models.adapters import text_stacks

if TYPE_CHECKING:
    import torch


def hidden_matrices(model: torch.nn.Module) -> frozenset[str]:
    """Return the names of the trained matrices inside a model's layers.

    Embeddings, heads and whatever else lies outside the layers are left out (Jordan et al. 2024), as are tensors of
    more dimensions, such as all experts of a layer in one.

    Args:
        model: The model, with or without an adapter.

    Returns:
        The names.

    Raises:
        SettingsError: No such matrix is trained.
    """
    import torch

    stacks = tuple(f"{name}." for name in text_stacks(model))  # type: ignore[arg-type]
    of_embeddings = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, torch.nn.Embedding)
        for parameter in module.parameters()
    }
    found = frozenset(
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.ndim == 2 and name.startswith(stacks)
        if id(parameter) not in of_embeddings
    )
    if not found:
        raise SettingsError(
            "Muon으로 학습할 행렬이 없습니다. Muon은 반복되는 층(block) 안의 행렬에만 씁니다.",
            where="training.optimizer: muon",
            remedy="training.optimizer를 adamw로 두세요.",
        )
    return found
