"""Quantised base weights: which ones, training an adapter beside them, and merging into the unquantised base."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from exceptions import ModelError, SettingsError
from finetuning.checkpoints.tensors import restore_model, trained_tensors
from finetuning.config.schema import Settings
from finetuning.models.combinations import check_combination
from finetuning.models.quantization import check_device
from finetuning.tasks.registry import find_task
from model_manager import ModelManager
from tests.support.models import disturb, logits_of

CPU = torch.device("cpu")
KINDS = pytest.mark.parametrize("kind", ["4bit", "8bit"])
LABELS = ("부정", "긍정")


TASKS = {
    "bert": "text-classification",
    "gpt2": "text-generation",
    "llama": "text-generation",
    "t5": "text2text-generation",
}


def made(name: str, folder: Path, width: int = 64) -> Any:
    """A model of random weights that was loaded from a folder; its linear layers have a multiple of `width` inputs."""
    import transformers as t

    common = {"vocab_size": 97, "hidden_size": width, "num_hidden_layers": 2, "num_attention_heads": 4}
    wide = {**common, "intermediate_size": 2 * width, "max_position_embeddings": 64}
    torch.manual_seed(0)
    model: Any = {
        "bert": lambda: t.BertForSequenceClassification(t.BertConfig(**wide)),
        "gpt2": lambda: t.GPT2LMHeadModel(
            t.GPT2Config(
                vocab_size=97, n_embd=width, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=1
            )
        ),
        "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**wide, num_key_value_heads=2)),
        "t5": lambda: t.T5ForConditionalGeneration(
            t.T5Config(vocab_size=97, d_model=width, d_kv=width // 4, d_ff=2 * width, num_layers=2, num_heads=4)
        ),
    }[name]()  # fmt: skip
    model.save_pretrained(folder)
    return type(model).from_pretrained(folder).eval()


@pytest.fixture
def bitsandbytes() -> Any:
    return pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")


def settings_of(name: Path | str, task: str, method: str = "lora", **model: object) -> Settings:
    adapter = {"method": method, "r": 4, "dropout": 0.0}
    memory = {"mixed_precision": False}  # computed in float32, so that what differs is the weights
    return Settings.model_validate(
        {"model": {"name": str(name), "task": task, "adapter": adapter, **model}, "memory": memory}
    )


def manager_of(name: Path | str, architecture: str, **settings: Any) -> ModelManager:
    made = settings_of(name, TASKS[architecture], **settings)
    return ModelManager(made, find_task(made))


def saved(manager: ModelManager, model: Any, folder: Path) -> Path:
    """The adapter and the config as a run leaves them, without a tokenizer."""
    model.save_pretrained(folder)
    from finetuning.models.saving import plain_config

    plain_config(model).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("method", ["none", "freeze"])
def test_only_what_is_not_trained_is_quantised(method: str) -> None:
    with pytest.raises(SettingsError, match="LoRA나 DoRA가 필요합니다") as error:
        check_combination(settings_of("klue/bert-base", "text-classification", method, quantization="4bit"))
    assert f"model.adapter.method: {method}" in error.value.where
    check_combination(settings_of("klue/bert-base", "text-classification", method))


@KINDS
def test_impossible_quantization_is_refused_before_loading(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of("not/there", "text-classification", quantization=kind)
    with pytest.raises(SettingsError, match="mps 장치에서는"):
        check_device(settings, torch.device("mps"))
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(SettingsError, match=f"{kind} 양자화에는 bitsandbytes가 필요합니다") as error:
        check_device(settings, CPU)
    assert "pip install bitsandbytes" in error.value.remedy
    check_device(settings_of("not/there", "text-classification"), CPU)


def test_an_unsupported_device_is_reported(bitsandbytes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(bitsandbytes.functional, "quantize_4bit", fails)
    with pytest.raises(SettingsError, match="no kernel image is available"):
        check_device(settings_of("not/there", "text-classification", quantization="4bit"), CPU)


def test_dora_beside_8bit_weights_is_refused_on_a_cpu() -> None:
    settings = settings_of("not/there", "text-classification", "dora", quantization="8bit")
    with pytest.raises(SettingsError, match="DoRA"):
        check_device(settings, CPU)


@KINDS
@pytest.mark.parametrize("architecture", ["bert", "llama", "gpt2", "t5"])
def test_blocks_are_quantised_and_nothing_else(bitsandbytes: Any, architecture: str, kind: str, tmp_path: Path) -> None:
    from transformers.integrations.bitsandbytes import dequantize_bnb_weight
    from transformers.pytorch_utils import Conv1D

    plain = made(architecture, tmp_path / "base")
    manager = manager_of(tmp_path / "base", architecture, quantization=kind)
    model = manager.load_model(LABELS if architecture == "bert" else ())
    layer = bitsandbytes.nn.Linear4bit if kind == "4bit" else bitsandbytes.nn.Linear8bitLt
    quantised = {
        name.removesuffix(".base_layer") for name, module in model.named_modules() if isinstance(module, layer)
    }
    adapted = {n.removesuffix(".lora_A.default") for n, _ in model.named_modules() if n.endswith(".lora_A.default")}
    kept_whole = {name for name in adapted if name.endswith(".wo")}  # T5's overflows, says its architecture
    assert quantised == adapted - kept_whole and quantised
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert {p.dtype for p in trained.values()} == {torch.float32}
    assert any(name.startswith("classifier.") for name in trained) == (architecture == "bert")
    for name in quantised:
        whole, layer = plain.get_submodule(name), model.get_submodule(f"{name}.base_layer")
        expected = whole.weight.T if isinstance(whole, Conv1D) else whole.weight
        found = dequantize_bnb_weight(layer.weight, layer.state if kind == "8bit" else None)
        assert float((found - expected).norm() / expected.norm()) < (0.12 if kind == "4bit" else 0.02)


@KINDS
@pytest.mark.parametrize(("architecture", "method"), [("bert", "lora"), ("llama", "dora"), ("gpt2", "lora")])
def test_a_saved_adapter_meets_the_base_it_was_trained_on_and_merges_into_the_whole_one(
    bitsandbytes: Any, architecture: str, method: str, kind: str, tmp_path: Path
) -> None:
    made(architecture, tmp_path / "base")
    manager = manager_of(tmp_path / "base", architecture, method=method, quantization=kind)
    torch.manual_seed(0)
    model = manager.load_model(LABELS if architecture == "bert" else ())
    disturb(model)
    trained = logits_of(model.eval())
    folder = saved(manager, model, tmp_path / "adapter")
    manager.name = str(folder)
    again = manager.load_saved().eval()
    torch.testing.assert_close(logits_of(again), trained, atol=1e-6, rtol=1e-5)

    merged = manager.load_merged().eval()
    whole = manager_of(tmp_path / "base", architecture, method=method)
    reference = whole.load_model(LABELS if architecture == "bert" else ())
    restore_model(reference, trained_tensors(model))  # the same adapter on a base that never was quantised
    torch.testing.assert_close(logits_of(merged), logits_of(reference.eval()), atol=1e-5, rtol=1e-4)
    if kind == "4bit":  # so that a merge through the rounded base would be noticed
        assert float((logits_of(merged) - trained).abs().max()) > 1e-4
    assert not any("lora" in name for name, _ in merged.named_parameters())
    assert {p.dtype for p in merged.parameters()} == {torch.float32}
    assert getattr(merged.config, "quantization_config", None) is None


def test_a_merged_weight_is_the_whole_base_and_the_adapters_product(bitsandbytes: Any, tmp_path: Path) -> None:
    base = made("llama", tmp_path / "base")
    manager = manager_of(tmp_path / "base", "llama", quantization="4bit")
    model = manager.load_model(())
    disturb(model)
    manager.name = str(saved(manager, model, tmp_path / "adapter"))
    merged, weights = manager.load_merged().state_dict(), trained_tensors(model)
    name = "model.layers.1.mlp.down_proj"
    product = weights[f"{name}.lora_B.default.weight"] @ weights[f"{name}.lora_A.default.weight"]
    expected = base.state_dict()[f"{name}.weight"] + product * 32 / 4  # alpha / r
    torch.testing.assert_close(merged[f"{name}.weight"], expected, atol=1e-6, rtol=1e-6)


@KINDS
def test_evaluating_leaves_the_weights_that_training_reads(bitsandbytes: Any, kind: str, tmp_path: Path) -> None:
    """Otherwise a run resumed after an evaluation would differ from an uninterrupted one."""
    made("llama", tmp_path / "base")
    models = [manager_of(tmp_path / "base", "llama", quantization=kind) for _ in range(2)]
    evaluated, fresh = (manager.load_model(()) for manager in models)
    restore_model(fresh, trained_tensors(evaluated))
    logits_of(evaluated.eval())
    kept = trained_tensors(evaluated)
    assert kept and all("lora_" in name for name in kept)
    losses = []
    for model in (evaluated.train(), fresh.train()):
        loss = model(input_ids=torch.arange(10, 26)[None]).logits.square().mean()
        loss.backward()
        gradients = [p.grad for p in model.parameters() if p.requires_grad]
        losses.append((loss.detach(), *gradients))
    for one, other in zip(*losses, strict=True):
        assert torch.equal(one, other)


@KINDS
def test_gradient_checkpointing_gives_the_same_gradient(bitsandbytes: Any, kind: str, tmp_path: Path) -> None:
    made("llama", tmp_path / "base")
    model = manager_of(tmp_path / "base", "llama", quantization=kind).load_model(()).train()
    disturb(model)
    found = []
    for checkpointed in (False, True):
        if checkpointed:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.zero_grad()
        model(input_ids=torch.arange(10, 26)[None]).logits.square().mean().backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    assert all(gradient is not None and bool(gradient.any()) for gradient in found[0].values())
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=0, rtol=0)


def test_full_models_and_quantised_files_are_refused(bitsandbytes: Any, tmp_path: Path) -> None:
    made("llama", tmp_path / "base")
    manager = manager_of(tmp_path / "base", "llama", quantization="4bit")
    with pytest.raises(SettingsError, match="전체 모델"):
        manager.load_saved()
    model = manager.load_model(())
    model.config.save_pretrained(tmp_path / "quantised")
    manager.name = str(tmp_path / "quantised")
    with pytest.raises(ModelError, match="이미 양자화되어 저장된 모델"):
        manager.load_model(())


def test_a_row_that_is_no_whole_number_of_blocks_is_not_quantised(bitsandbytes: Any, tmp_path: Path) -> None:
    made("llama", tmp_path / "base", width=96)
    model = manager_of(tmp_path / "base", "llama", quantization="4bit").load_model(())
    quantised = {name for name, module in model.named_modules() if isinstance(module, bitsandbytes.nn.Linear4bit)}
    assert {name.split(".")[-2] for name in quantised} == {"down_proj"}  # 192 inputs, where the others have 96
    made("llama", tmp_path / "narrow", width=40)
    with pytest.raises(ModelError, match="양자화할 수 있는 linear 층이 없습니다"):
        manager_of(tmp_path / "narrow", "llama", quantization="4bit").load_model(())
