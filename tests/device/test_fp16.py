"""fp16 as on a T4, shown on a CPU: the loss scale's arithmetic, and steps whose gradients overflow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, linear

from finetuning.device.loss_scale import LossScale
from finetuning.device.runtime import Runtime
from finetuning.ops.vocabulary_loss import vocabulary_loss_sum
from finetuning.training.step import OptimizerStep
from finetuning.windows.order import Window
from tests.support.managers import make_manager
from training_manager import TrainingManager


class TwoProcesses(Runtime):
    """The runtime of one of two processes in fp16 on a CPU; the other one adds `other` to every sum."""

    other = 0.0

    @property
    def processes(self) -> int:
        return 2

    @property
    def process(self) -> int:
        return 0

    def totals(self, values: Sequence[float]) -> tuple[float, ...]:
        return tuple(values)

    def maxima(self, values: Sequence[float]) -> tuple[float, ...]:
        return tuple(values)

    def summed(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor  # the loss is that of both

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        for parameter in parameters:
            parameter.grad = (torch.zeros_like(parameter) if parameter.grad is None else parameter.grad) + self.other


def in_fp16(kind: type[Runtime] = Runtime) -> Any:
    """A runtime as on a card without bfloat16, on the CPU."""
    accelerator: Any = SimpleNamespace(
        device=torch.device("cpu"), mixed_precision="fp16", autocast=lambda: torch.autocast("cpu", torch.float16),
        process_index=0, num_processes=1, is_main_process=True,
    )  # fmt: skip
    return kind(accelerator)


def manager_in_fp16(manager: TrainingManager, kind: type[Runtime] = Runtime) -> TrainingManager:
    """Let a manager compute in fp16."""
    object.__setattr__(manager.evaluator, "runtime", in_fp16(kind))
    manager.runtime = manager.evaluator.runtime
    manager.stepper = OptimizerStep(manager.settings, manager.evaluator, manager.profile, manager.plan)
    return manager


def one_step(manager: TrainingManager) -> Any:
    ready = manager.planner.plan(Window(0, 0, np.arange(8)), manager.memory.token_budget)
    manager.stepper.set_learning_rate(1e-2)
    gradient = manager.stepper.gradient(ready, 0)
    return manager.stepper.update(gradient, manager.stepper.clip(gradient), 0)


def weights_of(manager: TrainingManager) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().float() for parameter in manager.model.parameters()])


def test_the_scale_moves_as_that_of_torch() -> None:
    theirs = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)
    ours = LossScale(is_enabled=True, value=8.0, growth_interval=3)
    random = np.random.default_rng(0)
    for _ in range(60):
        weight = torch.nn.Parameter(torch.ones(3))
        optimizer = torch.optim.SGD([weight], lr=0.0)
        factor = float("inf") if random.random() < 0.25 else 1.0
        theirs.scale((weight * 3).sum() * factor).backward()
        gradient = (torch.full((3,), 3.0) * ours.value * factor).clone()
        ours.unscale([gradient])
        theirs.unscale_(optimizer)
        assert torch.equal(gradient, weight.grad if weight.grad is not None else torch.empty(0))
        theirs.step(optimizer)
        theirs.update()
        if torch.isfinite(gradient).all():
            ours.count_good_step()
        else:
            ours.shrink()
        assert ours.value == theirs.get_scale()
        assert ours.state_dict().items() <= theirs.state_dict().items()
    again = LossScale(is_enabled=True)
    again.load_state_dict(theirs.state_dict())
    assert (again.value, again.good_steps) == (ours.value, ours.good_steps)


def test_the_gradient_of_a_head_does_not_overflow_before_the_scale_acts() -> None:
    """Thousands of tokens of one label, with large hidden states: their sum exceeds float16, their mean does not."""
    torch.manual_seed(0)
    tokens, width, vocabulary = 8192, 16, 64
    hidden = (30 * torch.rand(tokens, width)).requires_grad_()
    weight = (1e-3 * torch.randn(vocabulary, width)).requires_grad_()
    labels = torch.zeros(tokens, dtype=torch.long)
    expected = torch.autograd.grad(cross_entropy(linear(hidden, weight), labels), (hidden, weight))
    assert float(expected[1].abs().max()) * tokens > torch.finfo(torch.float16).max
    with torch.autocast("cpu", torch.float16):
        loss = vocabulary_loss_sum(hidden, weight, None, labels) / tokens
    scale = LossScale(is_enabled=True)
    made = torch.autograd.grad(scale.scaled(loss), (hidden, weight))
    scale.unscale(made)
    for found, right in zip(made, expected, strict=True):
        assert float((found - right).norm() / right.norm()) < 1e-2


def test_small_gradients_of_float16_hidden_states_do_not_vanish() -> None:
    """A model whose hidden states are float16: gradients below its smallest number appear once they are scaled."""
    torch.manual_seed(0)
    hidden = torch.randn(8, 16)
    weight, labels = torch.randn(32, 16) * 1e-7, torch.randint(32, (8,))
    whole = hidden.clone().requires_grad_()
    half = hidden.half().requires_grad_()
    expected = torch.autograd.grad(2**16 * cross_entropy(linear(whole, weight), labels, reduction="sum"), whole)[0]
    with torch.autocast("cpu", torch.float16):
        loss = vocabulary_loss_sum(half, weight * 2**10, None, labels)
    made = torch.autograd.grad(LossScale(is_enabled=True).scaled(loss), half)[0]
    assert made.dtype == torch.float16
    assert float((made.float() / 2**10 - expected).norm() / expected.norm()) < 2e-2


def test_an_overflow_lowers_the_scale_until_the_step_is_taken(tiny_model: Path, tmp_path: Path) -> None:
    manager = manager_in_fp16(make_manager(tiny_model, tmp_path, "text-classification", torch.float32))
    manager.stepper.loss_scale.value = 2.0**30
    before, overflows = weights_of(manager), 0
    while one_step(manager).overflowed:
        assert torch.equal(weights_of(manager), before)
        overflows += 1
    assert overflows > 0
    assert manager.stepper.loss_scale.value == 2.0 ** (30 - overflows)
    assert not torch.equal(weights_of(manager), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_in_fp16_is_that_in_float32(dtype: torch.dtype, tiny_causal: Path, tmp_path: Path) -> None:
    """With bfloat16 weights as well, for whose gradients GradScaler has no kernel on CUDA."""
    plain = make_manager(tiny_causal, tmp_path / "plain", "text-generation", torch.float32)
    norm = one_step(plain).grad_norm
    halved = manager_in_fp16(make_manager(tiny_causal, tmp_path / "halved", "text-generation", dtype))
    result = one_step(halved)
    assert not result.overflowed
    assert float(result.grad_norm) == pytest.approx(float(norm), rel=0.05)


def test_an_overflow_in_one_process_skips_the_step_in_all(tiny_model: Path, tmp_path: Path) -> None:
    """The other process's gradient overflows, this one's does not: both must skip the step and halve the scale."""
    manager = make_manager(tiny_model, tmp_path, "text-classification", torch.float32)
    manager = manager_in_fp16(manager, TwoProcesses)
    before = weights_of(manager)
    object.__setattr__(manager.stepper.runtime, "other", float("inf"))
    assert one_step(manager).overflowed
    assert manager.stepper.loss_scale.value == 2.0**15
    assert torch.equal(weights_of(manager), before)
    object.__setattr__(manager.stepper.runtime, "other", 0.0)
    assert not one_step(manager).overflowed
    assert not torch.equal(weights_of(manager), before)
