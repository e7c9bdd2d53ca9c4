"""Optimizers that need less memory: each trains like AdamW, within the tolerances stated here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from exceptions import SettingsError
from finetuning.config.schema import AdapterSettings, TrainingSettings
from finetuning.models.adapters import choose_trained
from finetuning.ops.rounding import stochastically_rounded
from finetuning.training.backward_step import measured_in_backward, stepped_in_backward
from finetuning.training.chunked import ChunkedOptimizer
from finetuning.training.optimizers import allocate_states, make_optimizer


def network(dtype: torch.dtype = torch.float32) -> torch.nn.Sequential:
    torch.manual_seed(0)
    layers = torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.LayerNorm(16), torch.nn.Linear(16, 3)
    return torch.nn.Sequential(*layers).to(dtype)


def inputs(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(step)
    x = torch.randn(32, 6, generator=random)
    return x, x @ torch.arange(18.0).reshape(6, 3).sin()


def loss_of(model: torch.nn.Module, step: int) -> torch.Tensor:
    x, y = inputs(step)
    dtype = next(model.parameters()).dtype
    return torch.nn.functional.mse_loss(model(x.to(dtype)).float(), y)


def trained(steps: int = 60, dtype: torch.dtype = torch.float32, **training: Any) -> tuple[torch.nn.Module, float]:
    """A network after some steps of an optimizer, and its mean loss over the last ten."""
    model = network(dtype)
    optimizer = make_optimizer(
        model, TrainingSettings.model_validate({"learning_rate": 1e-2, **training}), in_backward=False
    )
    losses = []
    for step in range(steps):
        loss = loss_of(model, step)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
    return model, sum(losses[-10:]) / 10


def test_biases_and_norms_do_not_decay(tiny_model: Path) -> None:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(tiny_model)
    decayed, kept = make_optimizer(model, TrainingSettings(weight_decay=0.1), in_backward=False).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert decayed["weight_decay"] == 0.1
    assert kept["weight_decay"] == 0.0
    assert all("bias" in names[id(p)] or "LayerNorm" in names[id(p)] for p in kept["params"])
    assert not any("bias" in names[id(p)] or "LayerNorm" in names[id(p)] for p in decayed["params"])
    assert len(decayed["params"]) + len(kept["params"]) == len(names)


def test_stepping_parameters_one_by_one_equals_stepping_them_together() -> None:
    together, apart = network(), network()
    settings = TrainingSettings(learning_rate=1e-2)
    optimizers = (
        make_optimizer(together, settings, in_backward=False),
        make_optimizer(apart, settings, in_backward=True),
    )
    assert isinstance(optimizers[0], torch.optim.AdamW)
    assert isinstance(optimizers[1], ChunkedOptimizer)
    for step in range(5):
        for model, optimizer in zip((together, apart), optimizers, strict=True):
            loss_of(model, step).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    for one, other in zip(together.parameters(), apart.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_stepping_in_the_backward_pass_equals_stepping_after_it() -> None:
    after, within = network(), network()
    settings = TrainingSettings(learning_rate=1e-2)
    optimizer, apart = (make_optimizer(model, settings, in_backward=True) for model in (after, within))
    assert isinstance(apart, ChunkedOptimizer)
    for step in range(5):
        loss_of(after, step).backward()
        norm = float(torch.nn.utils.clip_grad_norm_(after.parameters(), 0.5))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with measured_in_backward(within) as measured:
            loss_of(within, step).backward()
        total = measured.total()
        assert float(total) == pytest.approx(norm, rel=1e-5)
        assert all(parameter.grad is None for parameter in within.parameters())
        with stepped_in_backward(within, apart, (0.5 / (total + 1e-6)).clamp(max=1.0)):
            loss_of(within, step).backward()
    for one, other in zip(after.parameters(), within.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("skips_on_device", [True, False])
@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_a_gradient_that_is_not_finite_is_not_stepped(name: str, skips_on_device: bool) -> None:
    model = network()
    apart = make_optimizer(model, TrainingSettings.model_validate({"optimizer": name}), in_backward=True)
    assert isinstance(apart, ChunkedOptimizer) and apart.takes_found_inf
    apart.skips_on_device = skips_on_device
    for is_bad in (True, False):
        before = [parameter.detach().clone() for parameter in model.parameters()]
        with stepped_in_backward(model, apart, scale=None) as norm:
            (loss_of(model, 0) * (float("nan") if is_bad else 1.0)).backward()
        assert bool(norm.total().isnan()) == is_bad
        same = [torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)]
        assert all(same) if is_bad else not any(same)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_that_is_skipped_on_the_device_changes_nothing(dtype: torch.dtype) -> None:
    """As torch's AdamW does: the host does not wait to know whether the gradient is finite."""
    model = network(dtype)
    optimizer = make_optimizer(model, TrainingSettings(learning_rate=0.5), in_backward=True)
    assert isinstance(optimizer, ChunkedOptimizer)
    allocate_states(optimizer)
    for found_inf in (0.0, 1.0):
        kept = [t.clone() for p in model.parameters() for t in (p.detach(), *optimizer.state[p].values())]
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, float("nan") if found_inf else 1.0)
        optimizer.found_inf = torch.tensor(found_inf)
        optimizer.step()
        now = [t for p in model.parameters() for t in (p.detach(), *optimizer.state[p].values())]
        same = [torch.equal(old, new) for old, new in zip(kept, now, strict=True)]
        assert all(same) if found_inf else not any(same)


@pytest.mark.parametrize("sign", [1, -1])
def test_stochastic_rounding_is_unbiased(sign: int) -> None:
    value = sign * (1 + 2**-7 * 0.3)  # three tenths of the way from 1 to the next bfloat16
    rounded = stochastically_rounded(torch.full((100_000,), value), torch.Generator().manual_seed(0)).float()
    assert set(rounded.tolist()) == {sign * 1.0, sign * (1 + 2**-7)}
    assert float(rounded.mean()) == pytest.approx(value, abs=1e-4)


def test_exact_bfloat16_and_non_finite_values_are_not_rounded() -> None:
    held = torch.tensor([0.0, 1.5, -2.0, 3e38, float("inf"), float("nan")]).bfloat16()
    torch.testing.assert_close(
        stochastically_rounded(held.float(), torch.Generator()), held, equal_nan=True, rtol=0, atol=0
    )


def test_updates_too_small_for_bfloat16_are_not_lost() -> None:
    """A weight of 1 decreases by 1e-4 a step: rounding to nearest would never change it."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.ones(4096, dtype=torch.bfloat16))
    model = torch.nn.ParameterList([weight])
    settings = TrainingSettings(learning_rate=1e-4, weight_decay=0.0)
    optimizer = make_optimizer(model, settings, in_backward=False)
    for _ in range(100):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert float(weight.detach().float().mean()) == pytest.approx(0.99, abs=1e-3)


@pytest.mark.parametrize(
    ("training", "dtype", "tolerance"),
    [
        ({}, torch.bfloat16, 0.10),
        ({"optimizer": "adafactor"}, torch.float32, 0.50),
        ({"optimizer": "adamw_8bit"}, torch.float32, 0.10),
    ],
)
def test_each_learns_what_adamw_learns(training: dict[str, Any], dtype: torch.dtype, tolerance: float) -> None:
    if training.get("optimizer") == "adamw_8bit":
        pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    untrained, (_, reference) = float(loss_of(network(), 0)), trained()
    assert reference < untrained / 3
    _, loss = trained(dtype=dtype, **training)
    assert loss == pytest.approx(reference, rel=tolerance)


def test_replicas_of_bfloat16_weights_round_alike_whatever_their_process_draws() -> None:
    """Dropout is seeded by rank. If rounding used the same generator, the replicas would diverge."""
    ends = []
    for rank in range(2):
        model = network(torch.bfloat16)
        optimizer = make_optimizer(model, TrainingSettings(learning_rate=1e-3), in_backward=False)
        assert isinstance(optimizer, ChunkedOptimizer)
        for step in range(3):
            torch.manual_seed(rank)  # as a process's dropout leaves it
            optimizer.seed_rounding(7, step, 0)
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, 1e-3)
            optimizer.step()
        ends.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    assert torch.equal(*ends)


# --- Muon and LoRA+ ---


def draw_gradients(model: torch.nn.Module, step: int) -> None:
    """The same gradients for models of one shape."""
    random = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn(parameter.shape, generator=random)


@pytest.mark.parametrize("in_backward", [False, True])
def test_muon_steps_the_matrices_of_the_layers_as_torch_does(tiny_causal: Path, in_backward: bool) -> None:
    from transformers import AutoModelForCausalLM

    ours, theirs = (AutoModelForCausalLM.from_pretrained(tiny_causal) for _ in range(2))
    settings = TrainingSettings(learning_rate=1e-2, weight_decay=0.1, optimizer="muon")
    optimizer = make_optimizer(ours, settings, in_backward)
    named = dict(theirs.named_parameters())
    matrices = [p for name, p in named.items() if ".layers." in name and p.ndim == 2]
    others = [p for name, p in named.items() if not (".layers." in name and p.ndim == 2)]
    assert len(matrices) == 2 * 7 and any("embed_tokens" in name or "lm_head" in name for name in named)
    references = [
        torch.optim.Muon(matrices, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(
            [
                {"params": [p for p in others if p.ndim >= 2], "weight_decay": 0.1},
                {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
            ],
            lr=1e-2,
        ),
    ]
    for step in range(4):
        for model in (ours, theirs):
            draw_gradients(model, step)
        for each in (optimizer, *references):
            each.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_muon_rounds_bfloat16_weights(tiny_causal: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_causal, dtype=torch.bfloat16)
    optimizer = make_optimizer(model, TrainingSettings(learning_rate=1e-2, optimizer="muon"), in_backward=False)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    ids = torch.arange(1, 21).reshape(2, 10)
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    assert not any(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert {state["momentum_buffer"].dtype for state in optimizer.state.values() if "momentum_buffer" in state} == {
        torch.float32
    }


def test_muon_without_layers_is_refused() -> None:
    with pytest.raises(SettingsError, match="Muon") as error:
        make_optimizer(network(), TrainingSettings(optimizer="muon"), in_backward=False)
    assert error.value.where == "training.optimizer: muon"


def test_lora_plus_steps_as_peft_does(tiny_model: Path) -> None:
    from peft.optimizers import create_loraplus_optimizer
    from transformers import AutoModelForSequenceClassification

    models = []
    for _ in range(2):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(tiny_model, attention_probs_dropout_prob=0.0)
        choose_trained(model, AdapterSettings(method="lora", r=4, dropout=0.0), set())
        models.append(model.eval())
    settings = TrainingSettings(learning_rate=1e-3, weight_decay=0.1, lora_plus_ratio=16)
    optimizers = (
        make_optimizer(models[0], settings, in_backward=False),
        create_loraplus_optimizer(
            models[1], torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16, loraplus_weight_decay=0.1
        ),
    )
    for step in range(4):
        for model, optimizer in zip(models, optimizers, strict=True):
            for group in optimizer.param_groups:  # as a step sets them
                group["lr"] = 1e-3 * group["lr_scale"] if "lr_scale" in group else group["lr"]
            draw_gradients(model, step)
            optimizer.step()
    for (name, one), other in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6, msg=lambda said, name=name: f"{name}: {said}")
