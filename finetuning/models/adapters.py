"""Adapters: which weights of a model are trained, and which layers get low-rank additions.

A new method is a function and a row of METHODS (and its name and settings in config/schema).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from exceptions import ModelError, SettingsError, first_line_of
from finetuning.config.schema import AdapterSettings
from finetuning.korean.particles import with_particle
from finetuning.models import pissa
from finetuning.models.towers import towers
from finetuning.models.vocabulary import vocabulary_parameters

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig
    from transformers import PreTrainedModel


def choose_trained(
    model: PreTrainedModel, adapter: AdapterSettings, missing: Set[str], saved: LoraConfig | None = None
) -> None:
    """Choose which weights are trained, in place. Heads and new weights are trained under every method.

    Args:
        model: The model to be trained.
        adapter: The method and its settings.
        missing: Names of the weights that were not in the model's files.
        saved: The config of an adapter that is trained on, which says its layers and its shape.
    """
    if saved is None:
        METHODS[adapter.method].apply(model, adapter, missing)
    else:
        saved.inference_mode, saved.lora_dropout = False, adapter.dropout
        saved.modules_to_save = sorted({*(saved.modules_to_save or ()), *_heads(model, missing)}) or None
        model.add_adapter(saved)
    for name in towers(model):
        model.get_submodule(name).requires_grad_(False)


def _train_all(_model: PreTrainedModel, _adapter: AdapterSettings, _missing: Set[str]) -> None:
    """Train every weight, as a loaded model does."""


def _add_low_rank(
    model: PreTrainedModel, adapter: AdapterSettings, missing: Set[str], use_dora: bool = False,
    begins_as: bool | str = True,
) -> None:  # fmt: skip
    """Add low-rank products to linear layers through peft; in DoRA, with magnitudes that are trained apart."""
    from peft import LoraConfig

    targets = linear_layers(model) if adapter.target_modules == "auto" else adapter.target_modules
    _check_found(targets, model)
    _check_own_weights(targets, model)
    try:
        model.add_adapter(
            LoraConfig(
                r=adapter.r, lora_alpha=adapter.alpha, lora_dropout=adapter.dropout, target_modules=targets,
                modules_to_save=_heads(model, missing) or None, use_dora=use_dora, use_rslora=adapter.rslora,
                init_lora_weights=begins_as,  # type: ignore[arg-type]
                exclude_modules="|".join(rf"{re.escape(name)}\..*" for name in towers(model)) or None,
            )
        )  # fmt: skip
    except ValueError as error:
        raise ModelError(
            f"어댑터를 붙일 층을 찾지 못했습니다: {first_line_of(error)}",
            where=f"model.adapter.target_modules: {adapter.target_modules}",
            remedy="auto로 두거나, 이 모델에 있는 linear 층의 이름을 쓰세요. 예: [q_proj, v_proj]",
        ) from error


def _add_principal(model: PreTrainedModel, adapter: AdapterSettings, missing: Set[str]) -> None:
    """Add low-rank products that take over the largest singular values of the weights; see models/pissa.py."""
    before = pissa.weights_before(model)
    is_outline = any(parameter.is_meta for parameter in model.parameters())
    smallest = min((min(weight.shape) for weight in _target_weights(model, adapter)), default=adapter.r)
    if smallest < adapter.r:
        raise SettingsError(
            f"PiSSA의 rank는 행렬의 크기보다 클 수 없습니다. 어댑터를 붙일 가장 작은 행렬의 크기는 {smallest:,}입니다.",
            where=f"model.adapter.method: pissa, model.adapter.r: {adapter.r}",
            remedy=f"model.adapter.r을 {smallest:,} 이하로 하거나, model.adapter.method를 lora로 하세요.",
        )
    _add_low_rank(model, adapter, missing, begins_as=True if is_outline else pissa.INIT)
    pissa.keep_beginning(model, before)


def _freeze(model: PreTrainedModel, adapter: AdapterSettings, missing: Set[str]) -> None:
    """Train the last `layers` blocks of each stack, and the heads."""
    found, heads = text_stacks(model), _heads(model, missing)
    most = max((len(stack) for stack in found.values()), default=0)
    if adapter.layers > most:
        raise SettingsError(
            f"이 모델의 층은 {most}개인데 마지막 {adapter.layers}개를 학습하도록 설정되어 있습니다.",
            where=f"model.adapter.layers: {adapter.layers}",
            remedy=f"model.adapter.layers를 {most} 이하로 하거나, 모두 학습하려면 method를 none으로 하세요.",
        )
    model.requires_grad_(False)
    for stack in found.values():
        for block in stack[-adapter.layers :]:
            block.requires_grad_(True)
    for name in heads:
        model.get_submodule(name).requires_grad_(True)


@dataclass(frozen=True)
class Method:
    """How `model.adapter.method` trains a model.

    Attributes:
        apply: Chooses the trained weights of a model in place; its arguments are those of `choose_trained`.
        adds_weights: Whether the base stays as it is, so that it may be quantised and is saved without its weights.
    """

    apply: Callable[[PreTrainedModel, AdapterSettings, Set[str]], None]
    adds_weights: bool


METHODS: Mapping[str, Method] = {
    "none": Method(_train_all, adds_weights=False),
    "lora": Method(partial(_add_low_rank, use_dora=False), adds_weights=True),  # Hu et al. 2021
    "dora": Method(partial(_add_low_rank, use_dora=True), adds_weights=True),  # Liu et al. 2024
    "pissa": Method(_add_principal, adds_weights=True),  # Meng et al. 2024
    "freeze": Method(_freeze, adds_weights=False),
}


# --- the layers of a model ---


def _check_found(targets: Sequence[str], model: PreTrainedModel) -> None:
    """Raise ModelError if a target names no layer; peft only requires that one of them does."""
    names = [f".{name}" for name, _ in model.named_modules()]
    unknown = [target for target in targets if not any(name.endswith(f".{target}") for name in names)]
    if unknown or not targets:
        raise ModelError(
            f"이 모델에 없는 층입니다: {', '.join(unknown)}" if unknown else "어댑터를 붙일 층이 없습니다.",
            where=f"model.adapter.target_modules: {list(targets)}",
            remedy=f"auto로 두거나, 이 모델의 linear 층에서 고르세요: {', '.join(_linear_names(model))}",
        )


def _target_weights(model: PreTrainedModel, adapter: AdapterSettings) -> list[torch.Tensor]:
    """Return the weights of the linear layers that get an adapter."""
    targets = linear_layers(model) if adapter.target_modules == "auto" else adapter.target_modules
    ends = tuple(f".{target}" for target in targets)
    found = (module for name, module in model.named_modules() if f".{name}".endswith(ends))
    return [weight for module in found if (weight := getattr(module, "weight", None)) is not None]


def _check_own_weights(targets: Sequence[str], model: PreTrainedModel) -> None:
    """Raise ModelError if a target shares its weight with another layer: merging would change both."""
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(name)
    for names in owners.values():
        shared = [name for name in names if any(f".{name}".endswith(f".{target}") for target in targets)]
        if shared and len(names) > 1:
            layer, others = shared[0], ", ".join(name for name in names if name != shared[0])
            raise ModelError(
                f"{others}의 가중치를 공유하는 층에는 어댑터를 붙일 수 없습니다: {layer}",
                where=f"model.adapter.target_modules: {list(targets)}",
                remedy=f"target_modules에서 {with_particle(layer, '을/를')} 빼거나, auto로 두세요.",
            )


def add_vocabulary(path: Path, model: PreTrainedModel, weights: Mapping[str, torch.Tensor]) -> None:
    """Make an adapter's file hold embedding and head where they were trained, by the names that peft loads, else not.

    peft adds them by itself, trained or not, where it can read the base's config and that has another vocabulary size.

    Args:
        path: The adapter's safetensors file, rewritten in place.
        model: The model that was trained.
        weights: Its weights by name, in the dtype to save.
    """
    from safetensors.torch import load_file, save_file

    own = {  # peft saves a new head itself
        f"base_model.model.{name}": (name, parameter.requires_grad)
        for name, parameter in vocabulary_parameters(model).items()
        if "modules_to_save" not in name
    }
    saved = load_file(path)
    trained = {key: weights[name].contiguous() for key, (name, is_trained) in own.items() if is_trained}
    if trained or not own.keys().isdisjoint(saved):
        others = {key: tensor for key, tensor in saved.items() if key not in own}
        save_file({**others, **trained}, path, metadata={"format": "pt"})


def linear_layers(model: PreTrainedModel) -> list[str]:
    """Return the names of the linear layers in a model's blocks, relative to the block.

    Args:
        model: The model.

    Returns:
        The names, sorted, each once.

    Raises:
        ModelError: There are none.
    """
    names = _linear_names(model)
    if not names:
        raise ModelError(
            "이 모델에서 반복되는 층(block)을 찾지 못했습니다.",
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
            for stack in text_stacks(model).values()
            for block in stack
            for name, module in block.named_modules()
            if isinstance(module, torch.nn.Linear | Conv1D) and not _is_own_class(module)
        }
    )


def _is_own_class(module: torch.nn.Module) -> bool:
    """Return whether a layer is of an architecture's own class, such as Llama 4's router, which returns more."""
    return type(module).__module__.startswith("transformers.models.")


def stacks(model: PreTrainedModel) -> dict[str, torch.nn.ModuleList]:
    """Return a model's stacks of blocks by name: the outermost lists of modules of one class."""
    import torch

    found: dict[str, torch.nn.ModuleList] = {}
    for name, module in model.named_modules():
        is_stack = isinstance(module, torch.nn.ModuleList) and len({type(block) for block in module}) == 1
        if is_stack and not any(name.startswith(f"{outer}.") for outer in found):
            found[name] = module
    return found


def text_stacks(model: PreTrainedModel) -> dict[str, torch.nn.ModuleList]:
    """Return the stacks that text passes."""
    others = tuple(f"{tower}." for tower in towers(model))
    return {name: stack for name, stack in stacks(model).items() if not name.startswith(others)}


def _heads(model: PreTrainedModel, missing: Set[str]) -> list[str]:
    """Return the modules that are trained whole: those outside blocks and vocabulary, and those with new weights."""
    others = {model.get_output_embeddings(), model.get_input_embeddings(), *stacks(model).values()}
    heads = [
        name
        for name, module in model.named_children()
        if others.isdisjoint(module.modules()) and any(True for _ in module.parameters())
    ]
    owners = sorted({key.rpartition(".")[0] for key in missing} - {""})
    return heads + [owner for owner in owners if not any(f"{owner}.".startswith(f"{head}.") for head in heads)]
