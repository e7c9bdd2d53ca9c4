"""Parameters that are stepped in chunks: the numbers of parameters that are stepped one by one, in far fewer calls."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from finetuning.config.schema import TrainingSettings
from finetuning.training import adafactor, chunked
from finetuning.training.chunked import ChunkedOptimizer
from finetuning.training.optimizers import make_optimizer

LR = 1e-2


def encoder(layers: int, dtype: torch.dtype) -> torch.nn.ModuleList:
    """The parameters of an encoder: matrices and vectors, and one tensor of three dimensions, as of experts."""
    torch.manual_seed(0)
    shapes = [(50, 16), (8, 16), *[(16, 16)] * 4, (32, 16), (16, 32), *[(16,)] * 9, (32,), (3, 16, 8)]
    made = [torch.nn.Parameter(torch.randn(shape).to(dtype)) for _ in range(layers) for shape in shapes]
    return torch.nn.ModuleList([torch.nn.ParameterList(made)])


def one_by_one(parameters: list[torch.nn.Parameter], rule: Callable[[Any], Any]) -> Callable[[int], None]:
    """What the program did before it stepped chunks: each parameter in float32, then rounded with noise of its own."""
    working = [p if p.dtype == torch.float32 else torch.nn.Parameter(p.detach().float()) for p in parameters]
    inner = [rule([one]) for one in working]

    def step(number: int) -> None:
        seed = int(np.random.SeedSequence([7, number]).generate_state(1, np.uint64)[0])
        generator = torch.Generator().manual_seed(seed)
        for parameter, one, optimizer in zip(parameters, working, inner, strict=True):
            if parameter.grad is None:
                continue
            if one is parameter:
                optimizer.step()
                continue
            one.data, one.grad = parameter.detach().float(), parameter.grad.float()
            optimizer.step()
            bits = one.detach().view(torch.int32)
            noise = torch.randint(1 << 16, bits.shape, dtype=bits.dtype, generator=generator)
            parameter.data.copy_(((bits + noise) & -(1 << 16)).view(torch.float32).to(torch.bfloat16))

    return step


def reference_rule(name: str) -> Callable[[Any], Any]:
    from transformers.optimization import Adafactor

    if name == "adamw":
        return lambda params: torch.optim.AdamW(params, lr=LR, weight_decay=0.1 * (params[0].ndim >= 2), fused=True)
    return lambda params: Adafactor(
        params, lr=LR, weight_decay=0.1 * (params[0].ndim >= 2), scale_parameter=False, relative_step=False,
        warmup_init=False,
    )  # fmt: skip


def draw_gradients(model: torch.nn.Module, number: int) -> None:
    random = torch.Generator().manual_seed(number)
    for place, parameter in enumerate(model.parameters()):
        drawn = torch.randn(parameter.shape, generator=random) * 10.0 ** (number % 3 - 1)
        parameter.grad = None if place % 7 == number % 3 else drawn.to(parameter.dtype)  # as of experts not chosen


def chunks_of(model: torch.nn.Module, name: str) -> ChunkedOptimizer:
    settings = TrainingSettings.model_validate({"optimizer": name, "learning_rate": LR, "weight_decay": 0.1})
    optimizer = make_optimizer(model, settings, in_backward=False)
    assert isinstance(optimizer, ChunkedOptimizer)
    return optimizer


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("adamw", torch.bfloat16), ("adafactor", torch.bfloat16), ("adafactor", torch.float32)],
)
@pytest.mark.parametrize("large", [10**6, 500])
def test_chunks_give_the_numbers_of_parameters_one_by_one(
    name: str, dtype: torch.dtype, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AdamW to the bit, with the noise of (seed, step, parameter). Adafactor sums in another order."""
    monkeypatch.setattr(chunked, "_LARGE", large)  # the largest matrix is stepped some rows at a time
    monkeypatch.setattr(
        chunked, "_AT_ONCE", {"cpu": 700}
    )  # chunks of several parameters, and parameters of several slices
    model = encoder(2, dtype)
    alone = copy.deepcopy(model)
    optimizer = chunks_of(model, name)
    ordered = [p for matrices in (True, False) for p in alone.parameters() if (p.ndim >= 2) == matrices]
    step_alone = one_by_one(ordered, reference_rule(name))
    for number in range(12):
        for one in (model, alone):
            draw_gradients(one, number)
        optimizer.seed_rounding(7, number, 0)
        optimizer.step()
        step_alone(number)
    for found, wanted in zip(model.parameters(), alone.parameters(), strict=True):
        if name == "adamw":
            assert torch.equal(found, wanted)
        elif dtype == torch.float32:
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
        else:  # a difference in the last bit of float32 may round otherwise
            assert float((found == wanted).float().mean()) > 0.98
            torch.testing.assert_close(found, wanted, rtol=0.02, atol=1e-3)


def test_muon_steps_a_large_matrix_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its update is of the whole matrix. An 8B model's layers have matrices of that size."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    monkeypatch.setattr(chunked, "_LARGE", 500)
    monkeypatch.setattr(chunked, "_AT_ONCE", {"cpu": 300})
    config = LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    model = AutoModelForCausalLM.from_config(config).bfloat16()
    optimizer = chunks_of(model, "muon")
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    before = [parameter.detach().clone() for parameter in matrices]
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    assert not any(map(torch.equal, before, matrices))


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_a_step_of_a_large_matrix_is_left_out_on_the_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adafactor, "_host_knows", lambda value: False)
    monkeypatch.setattr(chunked, "_LARGE", 500)
    monkeypatch.setattr(chunked, "_AT_ONCE", {"cpu": 300})
    model = torch.nn.Linear(20, 50, bias=False, dtype=torch.bfloat16)
    optimizer = chunks_of(model, name)
    for found_inf in (0.0, 1.0, 0.0):
        state = optimizer.state[model.weight]
        kept = [one.clone() for one in (model.weight, *state.values()) if isinstance(one, torch.Tensor)]
        model.weight.grad = torch.full_like(model.weight, float("nan") if found_inf else 1.0)
        optimizer.found_inf = torch.tensor(found_inf)
        optimizer.step()
        now = [one for one in (model.weight, *state.values()) if isinstance(one, torch.Tensor)]
        if found_inf:
            assert all(torch.equal(old, new) for old, new in zip(kept, now, strict=True))
        else:
            assert not torch.equal(kept[0], now[0])
        assert all(bool(torch.isfinite(one).all()) for one in now)


def test_adafactor_skips_a_step_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a device that is not the host: gradients that are not finite change neither weights nor averages."""
    monkeypatch.setattr(adafactor, "_host_knows", lambda value: False)
    model = encoder(1, torch.float32)
    optimizer = adafactor.Adafactor(model.parameters(), lr=LR)

    def tensors(parameter: torch.nn.Parameter) -> list[torch.Tensor]:
        states = optimizer.state[parameter].values()
        return [parameter.detach(), *(one for one in states if isinstance(one, torch.Tensor))]

    for found_inf in (0.0, 1.0, 0.0):
        draw_gradients(model, 3)
        kept = [t.clone() for p in model.parameters() for t in tensors(p)]
        if found_inf:
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.grad.fill_(float("nan"))
        optimizer.found_inf = torch.tensor(found_inf)
        optimizer.step()
        now = [t for p in model.parameters() for t in tensors(p)]
        if found_inf:
            assert all(torch.equal(old, new) for old, new in zip(kept, now, strict=True))
        assert all(bool(torch.isfinite(one).all()) for one in now)
    assert {state["step"] for state in optimizer.state.values() if state} == {3}


class Count(TorchDispatchMode):
    """Counts operators, as the kernels that a GPU would launch: a foreach over unequal shapes is one for each."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        lists = [
            [one.shape for one in found]
            for found in args
            if isinstance(found, list) and all(map(torch.is_tensor, found))
        ]
        is_one = not lists or not func.name().startswith("aten::_foreach") or all(one == lists[0] for one in lists)
        if not func.name().startswith(("aten::view", "aten::split", "aten::detach", "aten::empty", "aten::unsqueeze")):
            self.calls += 1 if is_one else len(lists[0])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("name", "dtype", "most"),
    [("adamw", torch.bfloat16, 1 / 10), ("adafactor", torch.bfloat16, 1 / 4), ("adafactor", torch.float32, 1 / 4)],
)
def test_chunks_take_a_fraction_of_the_calls(name: str, dtype: torch.dtype, most: float) -> None:
    model = encoder(12, dtype)
    alone = copy.deepcopy(model)
    optimizer, step_alone = chunks_of(model, name), one_by_one(list(alone.parameters()), reference_rule(name))
    counts = []
    for one, step in ((alone, step_alone), (model, lambda _: optimizer.step())):
        for number in range(2):  # states are made in the first step
            draw_gradients(one, number)
            with Count() as count:
                step(number)
        counts.append(count.calls)
    print(name, dtype, counts)
    assert counts[1] <= most * counts[0], counts
