"""The optimizers: one row each, with how to make it and the memory it needs.

A new optimizer is a function that returns a Rule, a row in OPTIMIZERS, and its name in config/sections/training.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from exceptions import SettingsError
from finetuning.config.schema import TrainingSettings
from finetuning.models.matrices import hidden_matrices
from finetuning.training.adafactor import Adafactor
from finetuning.training.chunked import ChunkedOptimizer, Rule, numbers_at_once
from finetuning.training.large import adamw_state

if TYPE_CHECKING:
    from torch.optim import Optimizer


# --- the rows ---


@dataclass(frozen=True)
class OptimizerRow:
    """One optimizer.

    Attributes:
        make_rule: Returns the function that makes the optimizer of some parameters.
        state_bytes: Bytes that it keeps for each trained parameter.
        temporaries: float32 tensors of a parameter's size that its step makes besides its states.
        is_by_rows: Whether a large matrix is stepped some rows at a time, if its step makes temporaries.
        matrices: How the matrices of a model's layers are stepped, where that is another way.
    """

    make_rule: Callable[[TrainingSettings], Rule]
    state_bytes: float
    temporaries: int = 0
    is_by_rows: bool = False
    matrices: OptimizerRow | None = None


def _adamw(settings: TrainingSettings) -> Rule:
    """AdamW (Loshchilov and Hutter 2019) by torch's fused kernel: two float32 moments."""
    betas = (settings.adam_beta1, settings.adam_beta2)
    return lambda params: torch.optim.AdamW(
        params, lr=settings.learning_rate, betas=betas, eps=settings.adam_epsilon, fused=True
    )


def _adamw_8bit(settings: TrainingSettings) -> Rule:
    """AdamW with moments in blocks of 8 bits (Dettmers et al. 2022), by bitsandbytes."""
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise SettingsError(
            "adamw_8bit에는 bitsandbytes가 필요합니다.",
            where="training.optimizer: adamw_8bit",
            remedy="`pip install bitsandbytes`로 설치하거나, 설치 없이 메모리를 더 적게 쓰는 adafactor를 고르세요.",
        ) from None
    betas = (settings.adam_beta1, settings.adam_beta2)
    return lambda params: AdamW8bit(params, lr=settings.learning_rate, betas=betas, eps=settings.adam_epsilon)


def _adafactor(settings: TrainingSettings) -> Rule:
    """Adafactor (Shazeer and Stern 2018): second moments by row and column, no first; the learning rate is AdamW's."""
    return lambda params: Adafactor(params, lr=settings.learning_rate)


def _muon(settings: TrainingSettings) -> Rule:
    """Muon (Jordan et al. 2024) by torch, its updates scaled to the size of AdamW's (Liu et al. 2025): one momentum."""
    return lambda params: torch.optim.Muon(params, lr=settings.learning_rate, adjust_lr_fn="match_rms_adamw")


# of Muon's step: the update, and in bfloat16 the matrix, its next iterate, its Gram matrix and a polynomial of that
_MUON = OptimizerRow(_muon, state_bytes=4.0, temporaries=3)

OPTIMIZERS: dict[str, OptimizerRow] = {
    "adamw": OptimizerRow(_adamw, state_bytes=8.0, is_by_rows=True),
    "muon": OptimizerRow(_adamw, state_bytes=8.0, is_by_rows=True, matrices=_MUON),
    "adamw_8bit": OptimizerRow(_adamw_8bit, state_bytes=2.0),
    # its states are a row and a column a matrix
    "adafactor": OptimizerRow(_adafactor, state_bytes=0.0, temporaries=1, is_by_rows=True),
}


# --- making one ---


def make_optimizer(
    model: torch.nn.Module, settings: TrainingSettings, in_backward: bool,
    shards: Mapping[torch.nn.Parameter, torch.nn.Parameter] = MappingProxyType({}),
) -> Optimizer:  # fmt: skip
    """Make the optimizer that `training.optimizer` names. Parameters of one dimension (biases, norms) do not decay.

    AdamW on float32 weights is torch's fused one over all parameters; everything else steps them chunk by chunk.

    Args:
        model: The model; parameters that require a gradient are trained.
        settings: The settings of training.
        in_backward: Whether the optimizer steps inside the backward pass.
        shards: What is stepped in the place of a sharded parameter.

    Returns:
        The optimizer.

    Raises:
        SettingsError: A package that the optimizer needs is not installed.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    stepped = _groups(model, settings, shards)
    groups = [group for _, group in stepped]
    is_plain = all(p.dtype in (torch.float32, torch.float64) for p in trained)
    if settings.optimizer == "adamw" and is_plain and not in_backward:
        return OPTIMIZERS[settings.optimizer].make_rule(settings)(groups)
    at_once = 0 if in_backward or not trained else numbers_at_once(trained[0].device)
    rules = [row.make_rule(settings) for row, _ in stepped]
    return ChunkedOptimizer(groups, settings.learning_rate, rules, at_once)


def rows_of(model: torch.nn.Module, optimizer: str) -> dict[str, OptimizerRow]:
    """Return how each trained parameter is stepped, by its name; optimizer: `training.optimizer`."""
    row = OPTIMIZERS[optimizer]
    apart = hidden_matrices(model) if row.matrices is not None else frozenset()
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    return {name: row.matrices if row.matrices is not None and name in apart else row for name in trained}


def _groups(
    model: torch.nn.Module, settings: TrainingSettings, shards: Mapping[torch.nn.Parameter, torch.nn.Parameter]
) -> list[tuple[OptimizerRow, dict[str, Any]]]:
    """Group the trained parameters by how they are stepped, weight decay and `lr_scale`, their factor of the rate."""
    from finetuning.models.depths import layers_below_head

    decay, trained = settings.layerwise_lr_decay, {n: p for n, p in model.named_parameters() if p.requires_grad}
    depths = layers_below_head(model) if decay < 1 else dict.fromkeys(trained, 0)  # type: ignore[arg-type]
    rows, own = rows_of(model, settings.optimizer), OPTIMIZERS[settings.optimizer]
    groups: dict[tuple[int, bool, bool, bool], tuple[OptimizerRow, dict[str, Any]]] = {}
    for name, parameter in trained.items():
        is_vector, row = parameter.ndim < 2, rows[name]
        is_faster = settings.lora_plus_ratio > 1 and (is_vector or "lora_B" in name)
        scale = decay ** depths[name] * (settings.lora_plus_ratio if is_faster else 1.0)
        group = {"params": [], "weight_decay": 0.0 if is_vector else settings.weight_decay, "lr_scale": scale}
        key = (depths[name], is_vector, is_faster, row is not own)
        groups.setdefault(key, (row, group))[1]["params"].append(shards.get(parameter, parameter))
    return [groups[key] for key in sorted(groups)]


def stepping_lines(model: torch.nn.Module, settings: TrainingSettings) -> list[str]:
    """Return a Korean line for each way in which some parameters are stepped otherwise than the rest."""
    lines, rows = [], rows_of(model, settings.optimizer)
    apart = sum(row is not OPTIMIZERS[settings.optimizer] for row in rows.values())
    if apart:
        lines.append(f"Muon: 층 안의 행렬 {apart:,}개는 Muon으로, 나머지 {len(rows) - apart:,}개는 AdamW로 학습합니다.")
    if settings.lora_plus_ratio > 1:
        rate = settings.learning_rate * settings.lora_plus_ratio
        lines.append(f"LoRA+: 행렬 B의 학습률은 {settings.lora_plus_ratio:g}배인 {rate:.3g}입니다.")
    return lines


def is_adamw(optimizer: Optimizer) -> bool:
    """Return whether every parameter is stepped by torch's AdamW."""
    return isinstance(optimizer, torch.optim.AdamW) or getattr(optimizer, "is_adamw", False)


def takes_found_inf(optimizer: Optimizer) -> bool:
    """Return whether a step changes nothing where the optimizer's `found_inf` is 1, so that the host need not know."""
    return isinstance(optimizer, torch.optim.AdamW) or getattr(optimizer, "takes_found_inf", False)


def allocate_states(optimizer: Optimizer) -> None:
    """Make AdamW's states before its first step, so that no step of it allocates anything.

    AdamW makes the states of a group, updates the group, and goes on to the next one. Running out of memory in between
    would leave half of the weights a step ahead of the others.
    """
    if not is_adamw(optimizer):
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter not in optimizer.state:
                optimizer.state[parameter] = adamw_state(parameter)


def has_8bit_optimizer(device: torch.device) -> bool:
    """Return whether bitsandbytes is installed and its 8-bit AdamW takes a step on the device; found by trying."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # its warnings at import are about other features
    try:
        from bitsandbytes.optim import AdamW8bit

        weight = torch.nn.Parameter(torch.ones(64, 64, device=device))  # smaller ones keep moments of 32 bits
        weight.grad = torch.ones_like(weight)
        AdamW8bit([weight]).step()
    except Exception:  # anything that a library raises that was built for another device
        return False
    return bool(torch.isfinite(weight).all())
