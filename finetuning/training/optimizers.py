"""The optimizers: one row each, with how to make it and the memory it needs.

A new optimizer is a function that returns a Rule, a row in OPTIMIZERS, and its name in config/sections/training.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from exceptions import SettingsError
from finetuning.config.schema import TrainingSettings
from finetuning.ops.rounding import stochastically_rounded

if TYPE_CHECKING:
    from torch.optim import Optimizer

# Numbers that are rounded at once: rounding needs five temporaries of its input's size. On a GPU each slice costs the
# launches of eight kernels.
_ROUNDED_AT_ONCE = {"cpu": 2**20}
_ROUNDED_AT_ONCE_ELSEWHERE = 2**22

Rule = Callable[[Any], "Optimizer"]  # parameters or groups → an optimizer over them


# --- the rows ---


@dataclass(frozen=True)
class OptimizerRow:
    """One optimizer.

    Attributes:
        make_rule: Returns the function that makes the optimizer of some parameters.
        state_bytes: Bytes that it keeps for each trained parameter.
        temporaries: float32 tensors of a parameter's size that its step makes besides its states.
    """

    make_rule: Callable[[TrainingSettings], Rule]
    state_bytes: float
    temporaries: int = 0


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
    from transformers.optimization import Adafactor

    return lambda params: Adafactor(
        params, lr=settings.learning_rate, scale_parameter=False, relative_step=False, warmup_init=False
    )


OPTIMIZERS: dict[str, OptimizerRow] = {
    "adamw": OptimizerRow(_adamw, state_bytes=8.0),
    "adamw_8bit": OptimizerRow(_adamw_8bit, state_bytes=2.0),
    "adafactor": OptimizerRow(_adafactor, state_bytes=0.0, temporaries=2),  # its states are a row and a column a matrix
}


# --- making one ---


def make_optimizer(model: torch.nn.Module, settings: TrainingSettings, in_backward: bool) -> Optimizer:
    """Make the optimizer that `training.optimizer` names. Parameters of one dimension (biases, norms) do not decay.

    AdamW on float32 weights is torch's fused one over all parameters; everything else steps them one by one.

    Args:
        model: The model; parameters that require a gradient are trained.
        settings: The settings of training.
        in_backward: Whether the optimizer steps inside the backward pass.

    Returns:
        The optimizer.

    Raises:
        SettingsError: A package that the optimizer needs is not installed.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = _groups(model, settings)
    rule = OPTIMIZERS[settings.optimizer].make_rule(settings)
    is_plain = all(p.dtype in (torch.float32, torch.float64) for p in trained)
    if settings.optimizer == "adamw" and is_plain and not in_backward:
        return rule(groups)
    return SteppedOneByOne(groups, settings.learning_rate, rule)


def _groups(model: torch.nn.Module, settings: TrainingSettings) -> list[dict[str, Any]]:
    """Group the trained parameters by weight decay and by `lr_scale`, their factor of the learning rate."""
    from finetuning.models.depths import layers_below_head

    decay, trained = settings.layerwise_lr_decay, {n: p for n, p in model.named_parameters() if p.requires_grad}
    depths = layers_below_head(model) if decay < 1 else dict.fromkeys(trained, 0)  # type: ignore[arg-type]
    groups = []
    for depth in sorted({depths[name] for name in trained}):
        here = [parameter for name, parameter in trained.items() if depths[name] == depth]
        groups += [
            {"params": [p for p in here if p.ndim >= 2], "weight_decay": settings.weight_decay},
            {"params": [p for p in here if p.ndim < 2], "weight_decay": 0.0},
        ]
        for group in groups[-2:]:
            group["lr_scale"] = decay**depth
    return groups


def is_adamw(optimizer: Optimizer) -> bool:
    """Return whether every parameter is stepped by torch's AdamW."""
    return isinstance(optimizer, torch.optim.AdamW) or getattr(optimizer, "is_adamw", False)


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
                dtype = torch.promote_types(parameter.dtype, torch.float32)
                optimizer.state[parameter] = {
                    "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter, dtype=dtype, memory_format=torch.preserve_format),
                    "exp_avg_sq": torch.zeros_like(parameter, dtype=dtype, memory_format=torch.preserve_format),
                }


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


class SteppedOneByOne(torch.optim.Optimizer):
    """Steps each parameter separately, with an optimizer that `rule` makes for it.

    A bfloat16 parameter is stepped in float32 and rounded stochastically, so that updates smaller than its resolution
    are not lost.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, rule: Rule) -> None:
        super().__init__(groups, {"lr": lr, "fused": True})  # "fused": the step count is a tensor beside the moments
        self._steppers = {p: (self._working(p), group) for group in self.param_groups for p in group["params"]}
        self._rules = {p: rule([working]) for p, (working, _) in self._steppers.items()}
        self._rounding = {device: torch.Generator(device) for device in {p.device for p in self._steppers}}
        self.is_adamw = all(isinstance(inner, torch.optim.AdamW) for inner in self._rules.values())
        self.found_inf: torch.Tensor | None = None  # as of torch's AdamW: 1 on the device means that nothing changes

    @staticmethod
    def _working(parameter: torch.nn.Parameter) -> torch.nn.Parameter:
        """Return the tensor to step: the parameter itself, or an empty float32 one that is filled for each step."""
        if parameter.dtype in (torch.float32, torch.float64):
            return parameter
        return torch.nn.Parameter(torch.empty(0, dtype=torch.float32, device=parameter.device))

    def seed_rounding(self, seed: int, step: int) -> None:
        """Seed the rounding of a step by the run alone, so that the replicas of several processes stay equal.

        Args:
            seed: Seed of the run.
            step: Number of the step, from 0.
        """
        number = int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0])
        for generator in self._rounding.values():
            generator.manual_seed(number)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Step every parameter that has a gradient."""
        for parameter in self._steppers:
            if parameter.grad is not None:
                self.step_parameter(parameter)

    @torch.no_grad()
    def step_parameter(self, parameter: torch.nn.Parameter) -> None:
        """Step one parameter by its gradient."""
        (working, group), inner = self._steppers[parameter], self._rules[parameter]
        inner.param_groups[0].update(lr=group["lr"], weight_decay=group["weight_decay"])
        if self.is_adamw:
            inner.found_inf = self.found_inf  # type: ignore[attr-defined]
        inner.state[working] = self.state[parameter]  # a checkpoint saves and restores the outer state
        if working is parameter:
            inner.step()
            return
        assert parameter.grad is not None
        working.data, working.grad = parameter.float(), parameter.grad.float()
        inner.step()
        working.grad = None
        at_once = _ROUNDED_AT_ONCE.get(parameter.device.type, _ROUNDED_AT_ONCE_ELSEWHERE)
        rows = max(1, at_once * max(1, len(torch.atleast_1d(parameter))) // max(1, parameter.numel()))
        slices = (torch.atleast_1d(values).split(rows) for values in (parameter, working.data))
        for kept, values in zip(*slices, strict=True):
            kept.copy_(stochastically_rounded(values, self._rounding[parameter.device]))
        working.data = torch.empty(0, device=parameter.device)
