"""PiSSA: adapters that begin as the largest singular values of their layers' weights, which the layers then lack.

Source: Meng et al. 2024. peft begins them. Each layer keeps the factors that it began with as buffers, and a checkpoint
holds them. So what is saved is a plain LoRA on the unchanged base, and a run goes on where another machine computes
other last digits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetuning.models.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from finetuning.models.weights import start_of

if TYPE_CHECKING:
    import torch

INIT = "pissa_niter_16"  # peft's name: the authors' fast SVD; an exact one takes a minute for a layer of 4096 x 11008
_A, _B, _START = "pissa_A", "pissa_B", "pissa_start"
_Factors = Mapping[str, tuple["torch.Tensor", "torch.Tensor"]]


def weights_before(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the first values of each layer's weight, by the layer's name; the weights are about to change."""
    import torch

    return {
        name: start_of(module.weight)
        for name, module in model.named_modules()
        if isinstance(getattr(module, "weight", None), torch.nn.Parameter)
    }


def keep_beginning(model: torch.nn.Module, before: Mapping[str, torch.Tensor]) -> None:
    """Keep the factors that each adapter begins with as buffers of its layer.

    Args:
        model: The model with its new adapters.
        before: Result of `weights_before`.
    """
    for name, layer in _adapted(model):
        layer.register_buffer(_A, layer.lora_A["default"].weight.detach().clone())
        layer.register_buffer(_B, layer.lora_B["default"].weight.detach().clone())
        layer.register_buffer(_START, before[name])


def unchanged_starts(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the first values of the base's weights that PiSSA changed, as they are in the base, by parameter name."""
    return {f"{name}.base_layer.weight": layer.get_buffer(_START) for name, layer in _begun(model)}


def kept_bytes(model: torch.nn.Module) -> int:
    """Return the bytes of what the layers keep; 0 without PiSSA."""
    kept = (layer.get_buffer(name) for _, layer in _begun(model) for name in (_A, _B, _START))
    return sum(tensor.numel() * tensor.element_size() for tensor in kept)


# --- resuming ---


def factors(model: torch.nn.Module) -> _Factors:
    """Return copies of the factors that the adapters began with, by layer; empty without PiSSA."""
    return {name: (layer.get_buffer(_A).clone(), layer.get_buffer(_B).clone()) for name, layer in _begun(model)}


def follow_checkpoint(model: torch.nn.Module, made: _Factors) -> None:
    """Make the base lack the factors of the checkpoint, where this machine computed others.

    Args:
        model: The model, with the buffers of the checkpoint.
        made: The factors that were computed when the model was loaded.
    """
    import torch

    for name, layer in _begun(model):
        a, b = layer.get_buffer(_A), layer.get_buffer(_B)
        if torch.equal(a, made[name][0]) and torch.equal(b, made[name][1]):
            continue
        change = layer.scaling["default"] * (made[name][1] @ made[name][0] - b @ a)
        weight = layer.get_base_layer().weight
        weight.data = (weight.float() + (change.T if layer.fan_in_fan_out else change)).to(weight.dtype)


# --- saving ---


def save_as_lora(folder: Path, model: torch.nn.Module) -> None:
    """Turn an adapter's files into those of a LoRA of twice the rank for the unchanged base, in place.

    The change of the weights, B A - B0 A0, is the product of [B, -B0] and [A; A0], as in peft's own conversion.

    Args:
        folder: The folder with the adapter as peft wrote it.
        model: The model that was trained. Without PiSSA nothing is changed.
    """
    import torch
    from safetensors.torch import load_file, save_file

    layers, path = dict(_begun(model)), folder / ADAPTER_WEIGHTS
    if not layers:
        return
    kept = (_A, _B, _START)  # which peft saves, too
    saved = {key: tensor for key, tensor in load_file(path).items() if key.rpartition(".")[2] not in kept}
    for name, layer in layers.items():
        for factor, sign, dimension in ((_A, 1, 0), (_B, -1, 1)):
            key = f"base_model.model.{name}.lora_{factor[-1]}.weight"
            began = sign * layer.get_buffer(factor).to("cpu", saved[key].dtype)
            saved[key] = torch.cat([saved[key], began], dimension).contiguous()
    save_file(saved, path, metadata={"format": "pt"})
    described = folder / ADAPTER_CONFIG
    config: dict[str, Any] = json.loads(described.read_text(encoding="utf-8"))
    config["r"] *= 2
    config["lora_alpha"] *= math.sqrt(2) if config["use_rslora"] else 2  # the scale stays
    config["init_lora_weights"] = True
    described.write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _adapted(model: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer))


def _begun(model: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    return ((name, module) for name, module in model.named_modules() if _A in module._buffers)
