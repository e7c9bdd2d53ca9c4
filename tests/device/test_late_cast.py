"""Weights of files in another dtype: cast when they are read, with the values of a cast while loading."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from finetuning.config.schema import Settings
from finetuning.device.late_cast import LateCast, casting_late, release
from finetuning.tasks.registry import find_task
from model_manager import ModelManager


def stored(dtype: torch.dtype = torch.float16) -> torch.Tensor:
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).to(dtype)


def write_row(weight: nn.Parameter) -> None:
    with torch.no_grad():
        weight[1].zero_()


def write_view(weight: nn.Parameter) -> None:
    weight.data.t()[:2].mul_(3)


def add(weight: nn.Parameter) -> None:
    weight.data += 0.1


def multiply_assigned(weight: nn.Parameter) -> None:
    weight.data = weight.data * 2
    with torch.no_grad():
        weight.add_(1)


def cast_again(weight: nn.Parameter) -> None:
    weight.data = weight.data.to(torch.float64) / 3
    weight.data[0] = 7


@pytest.mark.parametrize("dtypes", [(torch.float16, torch.float32), (torch.float32, torch.bfloat16)])
@pytest.mark.parametrize("change", [None, write_row, write_view, add, multiply_assigned, cast_again])
def test_it_is_read_and_written_like_a_cast_tensor(
    dtypes: tuple[torch.dtype, torch.dtype], change: Callable[[nn.Parameter], None] | None
) -> None:
    late, plain = (nn.Parameter(kind(stored(dtypes[0]), dtypes[1])) for kind in (LateCast, torch.Tensor.to))
    assert isinstance(late, LateCast) and isinstance(late, nn.Parameter) and late.requires_grad
    if change is not None:
        change(late)
        change(plain)
    assert (late.dtype, late.shape, late.device, late.stride()) == (
        plain.dtype, plain.shape, plain.device, plain.stride()
    )  # fmt: skip
    assert late.sum() == plain.sum() and str(late[:1].detach()) == str(plain[:1].detach())
    assert torch.equal(late.detach().clone(), plain.detach())
    assert torch.equal(torch.empty_like(plain).copy_(late.detach()), plain.detach())
    assert torch.equal(copy.deepcopy(late).detach(), plain.detach())
    gradients = [torch.autograd.grad((weight.t() @ weight).sum(), weight)[0] for weight in (late, plain)]
    assert torch.equal(*gradients)


def test_a_module_that_holds_it_is_cast_and_released() -> None:
    layer = nn.Linear(4, 6, bias=False)
    layer.weight = nn.Parameter(LateCast(stored(), torch.float32), requires_grad=False)
    layer.to(torch.float64)
    assert torch.equal(layer.weight.detach().clone(), stored().double()) and not layer.weight.requires_grad
    release(layer.weight)
    assert layer.weight.numel() == 0


@pytest.fixture(
    params=[("text-classification", torch.float16, "float32"), ("text-generation", torch.float32, "bfloat16")]
)
def case(request: Any, model_of: Callable[[str], Path], tmp_path: Path) -> tuple[Settings, torch.dtype]:
    """The settings of a model, and the dtype of its files, which is another than that of the settings."""
    task, dtype, wanted = request.param
    folder = tmp_path / "stored"
    shutil.copytree(model_of(task), folder)
    weights = {name: one.to(dtype) for name, one in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return Settings.model_validate({"model": {"task": task, "name": str(folder), "dtype": wanted}}), dtype


@pytest.mark.parametrize("method", ["none", "lora", "dora", "freeze"])
def test_a_model_is_the_same_whenever_its_weights_are_cast(case: tuple[Settings, torch.dtype], method: str) -> None:
    settings, dtype = case
    adapter = settings.model.adapter.model_copy(update={"method": method, "layers": 1})
    settings = settings.model_copy(update={"model": settings.model.model_copy(update={"adapter": adapter})})

    def load() -> Any:
        torch.manual_seed(0)
        return ModelManager(settings, find_task(settings)).load_model(("긍정", "부정")).eval()

    plain, late = load(), casting_late()(load)()
    weights, others = dict(plain.named_parameters()), dict(late.named_parameters())
    assert weights.keys() == others.keys()
    waiting = [name for name, one in others.items() if isinstance(one, LateCast)]
    assert waiting and all(others[name].stored.tensor.dtype == dtype for name in waiting)
    for name, weight in weights.items():
        assert weight.dtype == others[name].dtype and weight.requires_grad == others[name].requires_grad, name
        assert torch.equal(weight.detach(), others[name].detach().clone()), name
