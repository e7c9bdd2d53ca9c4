"""Adapters: which weights of a model are trained, and which layers the low-rank additions are put on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING

from exceptions import ModelError, SettingsError
from finetuning.config.schema import AdapterSettings
from finetuning.models.vocabulary import vocabulary_parameters

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def choose_trained(model: PreTrainedModel, adapter: AdapterSettings, new: Set[str]) -> None:
    """Leaves those weights to be trained that `adapter.method` says; new weights and heads are trained under each.

    lora, dora: low-rank additions to linear layers (Hu et al. 2021, Liu et al. 2024), set in place through peft;
    freeze: the last `layers` blocks of each stack. new: names of the weights that were not loaded.
    """
    if adapter.method == "none":
        return
    heads = _heads(model, new)
    if adapter.method == "freeze":
        _freeze(model, adapter.layers, heads)
        return
    from peft import LoraConfig

    targets = linear_layers(model) if adapter.target_modules == "auto" else adapter.target_modules
    _check_found(targets, model)
    try:
        model.add_adapter(
            LoraConfig(
                r=adapter.r, lora_alpha=adapter.alpha, lora_dropout=adapter.dropout, target_modules=targets,
                modules_to_save=heads or None, use_dora=adapter.method == "dora",
            )
        )  # fmt: skip
    except ValueError as error:
        raise ModelError(
            f"어댑터를 붙일 층을 찾지 못했습니다: {str(error).splitlines()[0]}",
            where=f"model.adapter.target_modules: {adapter.target_modules}",
            remedy="auto로 두거나, 이 모델에 있는 linear 층의 이름을 쓰세요. 예: [q_proj, v_proj]",
        ) from error


def _check_found(targets: Sequence[str], model: PreTrainedModel) -> None:
    """ModelError where a name is of no layer: peft asks only that one of them is."""
    names = [f".{name}" for name, _ in model.named_modules()]
    unknown = [target for target in targets if not any(name.endswith(f".{target}") for name in names)]
    if unknown or not targets:
        raise ModelError(
            f"이 모델에 없는 층입니다: {', '.join(unknown)}" if unknown else "어댑터를 붙일 층이 없습니다.",
            where=f"model.adapter.target_modules: {list(targets)}",
            remedy=f"auto로 두거나, 이 모델의 linear 층에서 고르세요: {', '.join(_linear_names(model))}",
        )


def add_vocabulary(path: Path, model: PreTrainedModel, weights: Mapping[str, torch.Tensor]) -> None:
    """Puts embedding and head, where they were trained, into an adapter's file, by the names that peft loads.

    weights: the model's by name, as they are to be saved. peft adds these itself only where it can compare the base's
    config, and that has another number of tokens.
    """
    from safetensors.torch import load_file, save_file

    trained = {
        f"base_model.model.{name}": weights[name].contiguous()
        for name, parameter in vocabulary_parameters(model).items()
        if parameter.requires_grad and "modules_to_save" not in name  # a new head, which peft saves
    }
    if trained:
        save_file({**load_file(path), **trained}, path, metadata={"format": "pt"})


def linear_layers(model: PreTrainedModel) -> list[str]:
    """The linear layers of the model's blocks, named from within a block; ModelError where there are none."""
    names = _linear_names(model)
    if not names:
        raise ModelError(
            "이 모델에서 되풀이되는 층(block)을 찾지 못했습니다.",
            where="model.adapter.target_modules: auto",
            remedy="어댑터를 붙일 linear 층의 이름을 직접 쓰세요. 예: [q_proj, v_proj]",
        )
    return names


def _linear_names(model: PreTrainedModel) -> list[str]:
    import torch
    from transformers.pytorch_utils import Conv1D

    return sorted(
        {
            name
            for stack in stacks(model).values()
            for block in stack
            for name, module in block.named_modules()
            if isinstance(module, torch.nn.Linear | Conv1D)
        }
    )


def stacks(model: PreTrainedModel) -> dict[str, torch.nn.ModuleList]:
    """The model's stacks of blocks by name: lists of modules of one class that are within no other such list."""
    import torch

    found: dict[str, torch.nn.ModuleList] = {}
    for name, module in model.named_modules():
        is_stack = isinstance(module, torch.nn.ModuleList) and len({type(block) for block in module}) == 1
        if is_stack and not any(name.startswith(f"{outer}.") for outer in found):
            found[name] = module
    return found


def _heads(model: PreTrainedModel, new: Set[str]) -> list[str]:
    """Modules that are trained whole: those outside the blocks and the vocabulary, and those with new weights."""
    others = {model.get_output_embeddings(), model.get_input_embeddings(), *stacks(model).values()}
    heads = [
        name
        for name, module in model.named_children()
        if others.isdisjoint(module.modules()) and any(True for _ in module.parameters())
    ]
    owners = sorted({key.rpartition(".")[0] for key in new} - {""})
    return heads + [owner for owner in owners if not any(f"{owner}.".startswith(f"{head}.") for head in heads)]


def _freeze(model: PreTrainedModel, layers: int, heads: Sequence[str]) -> None:
    found = stacks(model)
    most = max((len(stack) for stack in found.values()), default=0)
    if layers > most:
        raise SettingsError(
            f"이 모델의 층은 {most}개인데 마지막 {layers}개를 학습하라고 했습니다.",
            where=f"model.adapter.layers: {layers}",
            remedy=f"model.adapter.layers를 {most} 이하로 하거나, 모두 학습하려면 method를 none으로 하세요.",
        )
    model.requires_grad_(False)
    for stack in found.values():
        for block in stack[-layers:]:
            block.requires_grad_(True)
    for name in heads:
        model.get_submodule(name).requires_grad_(True)
