"""The optimizers, and steps that are taken parameter by parameter: in the backward pass, and on bfloat16 weights."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from exceptions import ResourceError, SettingsError
from finetuning.config.schema import TrainingSettings
from finetuning.device.oom import MAY_BE_OUT_OF_MEMORY, is_out_of_memory

if TYPE_CHECKING:
    from torch.optim import Optimizer

_ROUNDED_AT_ONCE = 2**20  # numbers: rounding has five temporaries of what it is given, which of embeddings is much


@dataclass(frozen=True)
class OptimizerMemory:
    """The memory of an optimizer.

    Attributes:
        state_bytes: Bytes of its states for each trained parameter.
        temporaries: float32 tensors of a parameter's size that it makes for the parameter's step.
    """

    state_bytes: float
    temporaries: int = 0


# Adafactor's states are a row and a column of each matrix, next to nothing; its step has the update twice.
OPTIMIZER_MEMORY = {
    "adamw": OptimizerMemory(8.0),
    "adamw_8bit": OptimizerMemory(2.0),
    "adafactor": OptimizerMemory(0.0, temporaries=2),
}


class HalfStep(ResourceError):
    """Memory ran out while the optimizer changed the weights: some may be a step ahead of the others."""


def make_optimizer(model: torch.nn.Module, settings: TrainingSettings, in_backward: bool) -> Optimizer:
    """The optimizer that `training.optimizer` names; biases and norms, parameters of one dimension, do not decay.

    AdamW on float32 weights is torch's fused one; else parameters are stepped one by one.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    is_plain = all(p.dtype in (torch.float32, torch.float64) for p in trained)
    if settings.optimizer == "adamw" and is_plain and not in_backward:
        return _adamw(settings)(groups)
    rules = {"adamw": _adamw, "adamw_8bit": _adamw_8bit, "adafactor": _adafactor}
    return SteppedOneByOne(groups, settings.learning_rate, rules[settings.optimizer](settings))


def learning_rate_factor(settings: TrainingSettings, step: int, total_steps: int) -> float:
    """What the learning rate is multiplied with at a step (from 0), as transformers.get_scheduler has it."""
    warmup = settings.warmup_steps or math.ceil(settings.warmup_ratio * total_steps)
    if step < warmup:
        return step / warmup
    if settings.lr_scheduler == "constant":
        return 1.0
    done = (step - warmup) / max(1, total_steps - warmup)
    if settings.lr_scheduler == "cosine":
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * done)))
    return max(0.0, 1.0 - done)


def allocate_states(optimizer: Optimizer) -> None:
    """Makes the states that AdamW would make in its first step, so that no step of it allocates anything.

    AdamW makes a group's states, updates the group, and goes on to the next: without memory for the next, half of the
    weights would be a step ahead of the others, and nothing could take them back.
    """
    if not (isinstance(optimizer, torch.optim.AdamW) or getattr(optimizer, "is_adamw", False)):
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


def _adamw(settings: TrainingSettings) -> Callable[[Any], Optimizer]:
    betas = (settings.adam_beta1, settings.adam_beta2)
    return lambda params: torch.optim.AdamW(
        params, lr=settings.learning_rate, betas=betas, eps=settings.adam_epsilon, fused=True
    )


def _adamw_8bit(settings: TrainingSettings) -> Callable[[Any], Optimizer]:
    """Moments in 8 bits by blocks (Dettmers et al. 2022); SettingsError where bitsandbytes is not installed."""
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise SettingsError(
            "adamw_8bit에는 bitsandbytes가 필요합니다.",
            where="training.optimizer: adamw_8bit",
            remedy="`pip install bitsandbytes`로 설치하거나, 설치 없이 더 적게 쓰는 adafactor를 고르세요.",
        ) from None
    betas = (settings.adam_beta1, settings.adam_beta2)
    return lambda params: AdamW8bit(params, lr=settings.learning_rate, betas=betas, eps=settings.adam_epsilon)


def has_8bit_optimizer(device: torch.device) -> bool:
    """Whether bitsandbytes is there and steps in 8 bits on the device; found out by trying."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of what is of no use here
    try:
        from bitsandbytes.optim import AdamW8bit

        weight = torch.nn.Parameter(torch.ones(64, 64, device=device))  # smaller ones keep moments of 32 bits
        weight.grad = torch.ones_like(weight)
        AdamW8bit([weight]).step()
    except Exception:  # whatever a library raises that was built for another device
        return False
    return bool(torch.isfinite(weight).all())


def _adafactor(settings: TrainingSettings) -> Callable[[Any], Optimizer]:
    """Second moments by row and column, no first (Shazeer and Stern 2018); the learning rate is as AdamW's."""
    from transformers.optimization import Adafactor

    return lambda params: Adafactor(
        params, lr=settings.learning_rate, scale_parameter=False, relative_step=False, warmup_init=False
    )


class SteppedOneByOne(torch.optim.Optimizer):
    """Steps each parameter on its own, by an optimizer that `rule` makes for it.

    A bfloat16 parameter is stepped in float32 and rounded stochastically: an update that is smaller than half of the
    distance to the next bfloat16 counts in expectation, where rounding to the nearest would lose it.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, rule: Callable[[Any], Optimizer]) -> None:
        super().__init__(groups, {"lr": lr, "fused": True})  # AdamW's count of steps is kept beside its moments
        self._steppers = {p: (self._working(p), group) for group in self.param_groups for p in group["params"]}
        self._rules = {p: rule([working]) for p, (working, _) in self._steppers.items()}
        self.is_adamw = all(isinstance(inner, torch.optim.AdamW) for inner in self._rules.values())

    @staticmethod
    def _working(parameter: torch.nn.Parameter) -> torch.nn.Parameter:
        """What is stepped for a parameter: itself, or an empty float32 one that is filled for the step."""
        if parameter.dtype in (torch.float32, torch.float64):
            return parameter
        return torch.nn.Parameter(torch.empty(0, dtype=torch.float32, device=parameter.device))

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for parameter in self._steppers:
            if parameter.grad is not None:
                self.step_parameter(parameter)

    @torch.no_grad()
    def step_parameter(self, parameter: torch.nn.Parameter) -> None:
        """One step of one parameter out of its gradient."""
        (working, group), inner = self._steppers[parameter], self._rules[parameter]
        inner.param_groups[0].update(lr=group["lr"], weight_decay=group["weight_decay"])
        inner.state[working] = self.state[parameter]  # what a checkpoint keeps and puts back
        if working is parameter:
            inner.step()
            return
        assert parameter.grad is not None
        working.data, working.grad = parameter.float(), parameter.grad.float()
        inner.step()
        working.grad = None
        rows = max(1, _ROUNDED_AT_ONCE * max(1, len(torch.atleast_1d(parameter))) // max(1, parameter.numel()))
        slices = (torch.atleast_1d(values).split(rows) for values in (parameter, working.data))
        for kept, values in zip(*slices, strict=True):
            kept.copy_(stochastically_rounded(values))
        working.data = torch.empty(0, device=parameter.device)


def stochastically_rounded(values: torch.Tensor) -> torch.Tensor:
    """float32 values as one of their two neighbours in bfloat16, each as likely as it is near: right in expectation.

    The 16 bits that bfloat16 lacks are carried over into those it has by adding random ones.
    """
    bits = values.contiguous().view(torch.int32)
    noise = torch.randint_like(bits, 1 << 16)
    rounded = ((bits + noise) & -(1 << 16)).view(torch.float32)
    return torch.where(torch.isfinite(values), rounded, values).to(torch.bfloat16)


# --- in the backward pass ---


class BackwardNorm:
    """The norm of a gradient that never exists as a whole."""

    def __init__(self) -> None:
        self._squares: list[torch.Tensor] = []

    def add(self, gradient: torch.Tensor) -> torch.Tensor:
        """Counts a parameter's gradient in; returns its own norm, a float32 scalar."""
        precision = torch.promote_types(gradient.dtype, torch.float32)
        norm: torch.Tensor = torch.linalg.vector_norm(gradient, dtype=precision)
        self._squares.append(norm.square())
        return norm

    def has_begun(self) -> bool:
        """Whether a gradient was counted in."""
        return bool(self._squares)

    def total(self) -> float:
        """The norm of all gradients that were counted in."""
        return math.sqrt(float(torch.stack(self._squares).sum())) if self._squares else 0.0


@contextmanager
def measured_in_backward(model: torch.nn.Module) -> Iterator[BackwardNorm]:
    """Takes every gradient's norm as soon as it is there, and drops the gradient."""
    norm = BackwardNorm()

    def drop(parameter: torch.nn.Parameter) -> None:
        assert parameter.grad is not None
        norm.add(parameter.grad)
        parameter.grad = None

    with after_each_gradient(model, drop):
        yield norm


@contextmanager
def stepped_in_backward(model: torch.nn.Module, optimizer: SteppedOneByOne, scale: float) -> Iterator[BackwardNorm]:
    """Steps every parameter as soon as its gradient, times scale, is there, and drops it (LOMO, Lv et al. 2023).

    A parameter whose gradient is not finite is not stepped.
    """
    norm = BackwardNorm()

    def step(parameter: torch.nn.Parameter) -> None:
        assert parameter.grad is not None
        if math.isfinite(norm.add(parameter.grad)):
            parameter.grad.mul_(scale)
            optimizer.step_parameter(parameter)
        parameter.grad = None

    try:
        with after_each_gradient(model, step):
            yield norm
    except MAY_BE_OUT_OF_MEMORY as error:
        if not (is_out_of_memory(error) and norm.has_begun()):
            raise
        raise HalfStep(
            "backward 중에 가중치를 업데이트하다가 메모리가 모자라 스텝을 되돌릴 수 없습니다.",
            where="memory.optimizer_in_backward: true",
            remedy="data.max_length를 줄이거나 memory.gradient_checkpointing을 true로 하고, "
            "--resume으로 마지막 체크포인트에서 이어서 학습하세요.",
        ) from error


@contextmanager
def after_each_gradient(model: torch.nn.Module, hook: Callable[[torch.nn.Parameter], None]) -> Iterator[None]:
    """Calls the hook with each trained parameter as soon as its gradient is whole."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    handles = [parameter.register_post_accumulate_grad_hook(hook) for parameter in trained]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
