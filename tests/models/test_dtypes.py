"""Adapters beside a base in bfloat16: what is loaded and trained in which dtype, and that it learns the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from finetuning.config.schema import Settings
from finetuning.models import dtypes
from finetuning.models.dtypes import base_dtype, trained_dtype
from finetuning.models.probes import attends_within_sequences, drops_padding
from finetuning.planning.estimate import parameter_bytes
from finetuning.tasks.registry import find_task
from finetuning.training.optimizers import make_optimizer
from model_manager import ModelManager
from tests.support.planning import fitting_for


@pytest.fixture
def in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that computes in bfloat16."""
    monkeypatch.setattr(dtypes, "autocast_precision", lambda settings: "bf16")


def settings_of(method: str, **model: Any) -> Settings:
    return Settings.model_validate({"model": {"adapter": {"method": method}, **model}})


@pytest.mark.parametrize(
    ("precision", "method", "model", "base", "trained"),
    [
        ("bf16", "lora", {}, "bfloat16", "float32"),
        ("bf16", "dora", {"dtype": "bfloat16"}, "bfloat16", "float32"),
        ("bf16", "none", {}, "float32", "float32"),
        ("bf16", "freeze", {}, "float32", "float32"),  # its frozen weights are saved with the model
        ("bf16", "none", {"dtype": "bfloat16"}, "bfloat16", "bfloat16"),
        ("fp16", "lora", {}, "float32", "float32"),  # hidden states add up in float32 there
        ("no", "lora", {}, "float32", "float32"),
        ("bf16", "lora", {"extend_vocabulary": 100}, "float32", "float32"),
    ],
)
def test_a_base_that_stays_is_loaded_as_it_is_computed(
    precision: str, method: str, model: dict[str, Any], base: str, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dtypes, "autocast_precision", lambda settings: precision)
    settings = settings_of(method, **model)
    assert (base_dtype(settings), trained_dtype(settings)) == (base, trained)
    assert (parameter_bytes(settings).frozen, parameter_bytes(settings).weight) == (
        {"float32": 4, "bfloat16": 2}[base], {"float32": 4, "bfloat16": 2}[trained]
    )  # fmt: skip


def loaded(folder: Path, task: str, method: str) -> Any:
    settings = settings_of(method, name=str(folder), task=task)
    torch.manual_seed(0)
    return ModelManager(settings, find_task(settings)).load_model(("긍정", "부정"))


@pytest.mark.usefixtures("in_bf16")
@pytest.mark.parametrize("method", ["lora", "dora"])
def test_the_adapter_is_float32_and_stepped_by_the_fused_optimizer(method: str, tiny_model: Path) -> None:
    model = loaded(tiny_model, "text-classification", method)
    kinds = {(parameter.requires_grad, parameter.dtype) for parameter in model.parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}
    optimizer = make_optimizer(model, Settings().training, in_backward=False)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.defaults["fused"]


@pytest.mark.usefixtures("in_bf16")
def test_layouts_without_padding_stay_open_to_it(tiny_model: Path, tiny_causal: Path) -> None:
    """Weights of two dtypes cannot be multiplied without autocast: the trials must not take that for a refusal."""
    assert drops_padding(loaded(tiny_model, "text-classification", "lora"))
    assert attends_within_sequences(loaded(tiny_causal, "text-generation", "lora"), 64)


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_it_learns_what_it_learns_beside_float32(
    method: str, tiny_causal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under autocast the base's products are bfloat16 either way."""
    ends = []
    for precision in ("no", "bf16"):
        monkeypatch.setattr(dtypes, "autocast_precision", lambda settings, precision=precision: precision)
        model = loaded(tiny_causal, "text-generation", method).train()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, fused=True)
        ids = torch.arange(1, 49).view(2, 24)
        for _ in range(30):
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(input_ids=ids, labels=ids).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        ends.append(float(loss.detach()))
    assert ends[0] < 5.2  # it began at the logarithm of 257
    assert ends[1] == pytest.approx(ends[0], rel=0.05)


@pytest.mark.usefixtures("in_bf16")
def test_the_estimate_counts_a_frozen_base_in_bfloat16(flags_for: Callable[[str], list[str]]) -> None:
    fitting = fitting_for([*flags_for("text-generation"), "--set", "model.adapter.method=lora"])
    estimate = fitting.estimate(fitting.settings)
    assert estimate.counted
    frozen = estimate.parameters - estimate.trained
    assert estimate.weights == 2 * frozen + 4 * estimate.trained


def test_a_quantised_base_keeps_its_embeddings(flags_for: Callable[[str], list[str]]) -> None:
    """The layers of blocks alone are quantised: with 32 hidden units half a block, so nothing in 4 bits here."""
    from finetuning.models.quantization import quantized_weights

    fitting = fitting_for([*flags_for("text-generation"), "--set", "model.adapter.method=lora"])
    outline = fitting.outline(fitting.settings)
    named = {name: p for name, p in outline.named_parameters() if not p.requires_grad and p.ndim == 2}
    in_blocks = sum(p.numel() for name, p in named.items() if ".layers." in name)
    assert 0 < in_blocks < sum(p.numel() for p in named.values())
    assert sum(quantized_weights(outline, "8bit").values()) == in_blocks
    wide = sum(p.numel() for name, p in named.items() if ".layers." in name and p.shape[1] % 64 == 0)
    assert sum(quantized_weights(outline, "4bit").values()) == wide > 0
    assert not quantized_weights(outline, None)
