"""A run's weights and optimizer state as named tensors, and the tensors that share memory among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch

from exceptions import ModelError
from finetuning.device.sharding import copy_part, is_divided, own_part
from finetuning.types import Checkpoint

_Storage = tuple[Any, ...]


def trained_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the trained weights and all buffers; frozen weights are loaded from the base model again."""
    kept = {name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}
    kept |= {name for name, _ in model.named_buffers(remove_duplicate=False)}
    return {name: tensor for name, tensor in model.state_dict().items() if name in kept}


def restore_model(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Load the tensors of `trained_tensors` back into a model.

    Args:
        model: The model, built under the same settings.
        tensors: Tensors by parameter or buffer name.

    Raises:
        ModelError: The model has other trained weights.
    """
    expected = trained_tensors(model)
    if expected.keys() != tensors.keys():
        different = sorted(expected.keys() ^ tensors.keys())
        raise ModelError(
            f"체크포인트의 가중치가 이 모델의 것이 아닙니다: {', '.join(different[:3])} 등 {len(different):,}개",
            remedy="처음 학습할 때의 모델과 어댑터 설정으로 이어서 학습하세요.",
        )
    if any(map(is_divided, expected.values())):
        for name, tensor in expected.items():
            copy_part(tensors[name], tensor)
    else:
        model.load_state_dict(tensors, strict=False)


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, names: Mapping[torch.nn.Parameter, str]
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Split an optimizer's state into tensors and plain numbers.

    Args:
        optimizer: The optimizer.
        names: The name of each trained parameter.

    Returns:
        Two dictionaries with keys `<entry>/<parameter name>`: tensors, and values that JSON can hold.
    """
    tensors: dict[str, torch.Tensor] = {}
    numbers: dict[str, Any] = {}
    for parameter, name in names.items():
        for entry, value in optimizer.state.get(parameter, {}).items():
            (tensors if isinstance(value, torch.Tensor) else numbers)[f"{entry}/{name}"] = value
    return tensors, numbers


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    names: Mapping[torch.nn.Parameter, str],
    tensors: Mapping[str, torch.Tensor],
    numbers: Mapping[str, Any],
) -> None:
    """Put the state of `optimizer_tensors` back, each tensor on the device where the optimizer keeps it.

    Args:
        optimizer: The optimizer to restore; its state is replaced.
        names: The name of each trained parameter.
        tensors: Tensors by `<entry>/<parameter name>`.
        numbers: Plain values by the same keys.
    """
    parameters = {name: parameter for parameter, name in names.items()}
    optimizer.state.clear()
    for key, value in {**tensors, **numbers}.items():
        entry, _, name = key.partition("/")
        parameter = parameters[name]
        if isinstance(value, torch.Tensor):
            # torch keeps `step` on the CPU unless the optimizer is fused
            is_fused = optimizer.defaults.get("fused")
            value = value.clone() if entry == "step" and not is_fused else value.to(parameter.device, copy=True)
        optimizer.state[parameter][entry] = value


def size_in_bytes(checkpoint: Checkpoint) -> int:
    """Return the bytes of a checkpoint's tensors; tensors that share memory count once."""
    return sum(tensor.numel() * tensor.element_size() for tensor in _distinct(checkpoint))


def size_here(checkpoint: Checkpoint) -> int:
    """Return the bytes of this process's part of a checkpoint's tensors."""
    return sum(own_part(tensor).nbytes for tensor in _distinct(checkpoint))


def copied(checkpoint: Checkpoint) -> Checkpoint:
    """Copy a checkpoint into CPU memory, so that training can change the originals. Tied tensors stay tied."""
    copies: dict[_Storage, torch.Tensor] = {}

    def copy(tensor: torch.Tensor) -> torch.Tensor:
        storage = _storage_of(tensor)
        if storage not in copies:
            copies[storage] = tensor.detach().to("cpu", copy=True)
        return copies[storage]

    model = {name: copy(tensor) for name, tensor in checkpoint.model.items()}
    optimizer = {name: copy(tensor) for name, tensor in checkpoint.optimizer.items()}
    return replace(checkpoint, model=model, optimizer=optimizer)


def without_aliases(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Drop tensors that share another's memory, such as tied embeddings: safetensors refuses to write them.

    Args:
        tensors: Tensors by name.

    Returns:
        The tensors to write, contiguous, and for each dropped name the name that stands for it.
    """
    kept: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[_Storage, str] = {}
    for name, tensor in tensors.items():
        storage = _storage_of(tensor)
        if storage in first:
            aliases[name] = first[storage]
        else:
            first[storage] = name
            kept[name] = tensor.contiguous()
    return kept, aliases


def _distinct(checkpoint: Checkpoint) -> Iterable[torch.Tensor]:
    every = (*checkpoint.model.values(), *checkpoint.optimizer.values())
    return {_storage_of(tensor): tensor for tensor in every}.values()


def _storage_of(tensor: torch.Tensor) -> _Storage:
    """Identify the memory of a tensor and how it is read. An empty tensor, or one that is divided, shares nothing."""
    if is_divided(tensor):
        return (id(tensor),)
    return (tensor.data_ptr() or id(tensor), tensor.device, tensor.shape, tensor.stride(), tensor.dtype)
