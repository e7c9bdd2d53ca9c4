"""PiSSA: it begins as peft's, does not change what the model computes, and is saved as a LoRA of the unchanged base."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from exceptions import SettingsError
from finetuning.checkpoints.fingerprint import _hash_frozen_weights
from finetuning.checkpoints.tensors import restore_model, trained_tensors
from finetuning.config.schema import AdapterSettings, Settings
from finetuning.models import pissa
from finetuning.models.adapters import choose_trained
from finetuning.models.combinations import check_combination
from finetuning.windows.order import Window
from tests.support.managers import gradient_at, make_manager
from tests.support.models import disturb, logits_of

RANK = 4


def begun(folder: Path, rslora: bool = False, seed: int = 0) -> Any:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    torch.manual_seed(seed)
    choose_trained(model, AdapterSettings(method="pissa", r=RANK, alpha=8, dropout=0.0, rslora=rslora), set())
    return model


@pytest.mark.parametrize("rslora", [False, True])
def test_it_begins_and_learns_as_pefts(tiny_causal: Path, rslora: bool, tmp_path: Path) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    plain, ours = AutoModelForCausalLM.from_pretrained(tiny_causal).eval(), begun(tiny_causal, rslora)
    targets = sorted({name.rpartition(".")[2] for name, _ in ours.named_modules() if name.endswith("_proj")})
    torch.manual_seed(0)
    config = LoraConfig(
        r=RANK, lora_alpha=8, target_modules=targets, use_rslora=rslora, init_lora_weights=pissa.INIT,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    theirs = get_peft_model(copy.deepcopy(plain), config).eval()
    torch.testing.assert_close(logits_of(ours), logits_of(plain), atol=1e-5, rtol=1e-4)
    theirs.peft_config["default"].init_lora_weights = True  # as its documentation says, before training
    theirs.save_pretrained(tmp_path / "init")
    theirs.peft_config["default"].init_lora_weights = pissa.INIT
    ids = torch.arange(1, 21).reshape(2, 10)
    for model in (ours, theirs):
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
        for _ in range(3):
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    torch.testing.assert_close(logits_of(ours), logits_of(theirs), atol=1e-5, rtol=1e-4)
    assert float((logits_of(ours) - logits_of(plain)).abs().max()) > 1e-2
    # saved, each is a plain LoRA on the base as it is on the disk
    ours.save_pretrained(tmp_path / "ours")
    pissa.save_as_lora(tmp_path / "ours", ours)
    theirs.save_pretrained(tmp_path / "theirs", path_initial_model_for_weight_conversion=str(tmp_path / "init"))
    loaded = [
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_causal), tmp_path / name).eval()
        for name in ("ours", "theirs")
    ]
    first, second = (model.peft_config["default"] for model in loaded)
    assert (first.r, first.init_lora_weights) == (second.r, second.init_lora_weights) == (2 * RANK, True)
    assert first.lora_alpha == pytest.approx(second.lora_alpha)
    files = [load_file(tmp_path / name / "adapter_model.safetensors") for name in ("ours", "theirs")]
    assert files[0].keys() == files[1].keys()
    for model in loaded:
        torch.testing.assert_close(logits_of(model), logits_of(ours), atol=1e-5, rtol=1e-4)


def test_a_run_goes_on_where_another_machine_computes_other_digits(tiny_causal: Path) -> None:
    """Another seed of the SVD stands for other digits, and other signs, of the factors."""
    first, second = begun(tiny_causal, seed=0), begun(tiny_causal, seed=1)
    with torch.no_grad():
        for _, layer in pissa._begun(second):  # a rotation of the factors, which stands for much more than digits
            for factor in (layer.lora_A, layer.lora_B):
                factor["default"].weight.mul_(0.5)
            weight = layer.base_layer.weight
            change = 0.75 * layer.scaling["default"] * layer.pissa_B @ layer.pissa_A
            weight.add_(change)
            layer.pissa_A.mul_(0.5)
            layer.pissa_B.mul_(0.5)
    assert _hash_frozen_weights(second) == _hash_frozen_weights(first)  # the base is the same one
    disturb(first)
    made = pissa.factors(second)
    restore_model(second, trained_tensors(first))
    pissa.follow_checkpoint(second, made)
    torch.testing.assert_close(logits_of(second), logits_of(first), atol=1e-5, rtol=1e-4)


def test_the_gradient_is_the_same_for_every_cut(tiny_model: Path, tmp_path: Path) -> None:
    manager = make_manager(tiny_model, tmp_path, "text-classification", torch.float32)
    choose_trained(manager.model, AdapterSettings(method="pissa", dropout=0.0, rslora=True), set())
    disturb(manager.model)
    window = Window(0, 0, np.arange(8))
    whole = gradient_at(manager, window, 10**6)
    for budget in (1, 30, 100):
        manager.model.zero_grad()  # the manager's optimizer was made before the adapter
        cut = gradient_at(manager, window, budget)
        assert float((cut - whole).norm() / whole.norm()) <= 1e-5


def test_a_rank_beyond_the_matrices_is_refused(tiny_causal: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_causal)
    with pytest.raises(SettingsError, match="PiSSA") as error:
        choose_trained(model, AdapterSettings(method="pissa", r=33), set())
    assert "model.adapter.r: 33" in error.value.where and "32" in error.value.remedy


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"model": {"adapter": {"method": "pissa"}, "quantization": "4bit"}}, "model.quantization: 4bit"),
        ({"model": {"adapter": {"rslora": True}}}, "model.adapter.rslora: true"),
        (
            {"training": {"lora_plus_ratio": 16}, "model": {"adapter": {"method": "freeze"}}},
            "training.lora_plus_ratio: 16",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_named(changed: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError) as error:
        check_combination(Settings.model_validate(changed))
    assert named in error.value.where and "model.adapter.method" in error.value.where
