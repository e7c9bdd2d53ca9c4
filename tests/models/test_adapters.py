"""Adapters: their layers in every architecture, and what is trained, saved and merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from exceptions import FinetuningError, ModelError
from finetuning.checkpoints.tensors import restore_model, trained_tensors
from finetuning.config.schema import AdapterSettings, Settings
from finetuning.models.adapters import METHODS, choose_trained, linear_layers
from finetuning.tasks.registry import find_task
from model_manager import ModelManager
from tests.support.models import disturb, logits_of

SMALL = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
WIDE = {**SMALL, "intermediate_size": 64, "max_position_embeddings": 64}


def architectures() -> dict[str, tuple[str, Any]]:
    """A small config of each architecture, and the auto class that makes a model of it."""
    import transformers as t

    grouped = {**WIDE, "num_key_value_heads": 2}
    return {
        "bert": ("AutoModelForSequenceClassification", t.BertConfig(**WIDE)),
        "electra": ("AutoModelForSequenceClassification", t.ElectraConfig(**WIDE, embedding_size=16)),
        "roberta": ("AutoModelForTokenClassification", t.RobertaConfig(**WIDE)),
        "t5": (
            "AutoModelForSeq2SeqLM",
            t.T5Config(vocab_size=97, d_model=32, d_kv=8, d_ff=64, num_layers=3, num_heads=4),
        ),
        "bart": (
            "AutoModelForSeq2SeqLM",
            t.BartConfig(
                vocab_size=97, d_model=32, encoder_layers=3, decoder_layers=3, encoder_attention_heads=4,
                decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=64,
            ),
        ),
        "gpt2": (
            "AutoModelForCausalLM",
            t.GPT2Config(vocab_size=97, n_embd=32, n_layer=3, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=1),
        ),
        "gpt_neox": ("AutoModelForCausalLM", t.GPTNeoXConfig(**WIDE)),
        "llama": ("AutoModelForCausalLM", t.LlamaConfig(**grouped)),
        "qwen2": ("AutoModelForCausalLM", t.Qwen2Config(**grouped)),
        "gemma2": ("AutoModelForCausalLM", t.Gemma2Config(**grouped, head_dim=8)),
        "exaone4": ("AutoModelForCausalLM", t.Exaone4Config(**grouped)),
    }  # fmt: skip


TASKS = {
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForTokenClassification": "text-classification",
    "AutoModelForSeq2SeqLM": "text2text-generation",
    "AutoModelForCausalLM": "text-generation",
}
NAMES = sorted(["bert", "electra", "roberta", "t5", "bart", "gpt2", "gpt_neox", "llama", "qwen2", "gemma2", "exaone4"])


def made(name: str, folder: Path) -> Any:
    """Load a model of random weights from a folder, as a run does."""
    import transformers

    auto_class, config = architectures()[name]
    torch.manual_seed(0)
    getattr(transformers, auto_class).from_config(config).save_pretrained(folder)
    return getattr(transformers, auto_class).from_pretrained(folder).eval()


@pytest.mark.parametrize("name", NAMES)
def test_auto_means_every_linear_layer_of_the_blocks(name: str, tmp_path: Path) -> None:
    from transformers.pytorch_utils import Conv1D

    model = made(name, tmp_path)
    in_blocks = {
        n
        for n, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and any(part.isdigit() for part in n.split("."))
    }
    assert len(in_blocks) >= 3 * 4  # three blocks, each at least query, key, value in one, output, and two of the MLP
    choose_trained(model, AdapterSettings(method="lora"), set())
    adapted = {n.removesuffix(".lora_A.default") for n, _ in model.named_modules() if n.endswith(".lora_A.default")}
    assert adapted == in_blocks


@pytest.mark.parametrize("method", ["lora", "dora"])
@pytest.mark.parametrize("name", NAMES)
def test_merged_and_unmerged_give_the_same(name: str, method: str, tmp_path: Path) -> None:
    auto_class, _ = architectures()[name]
    model = made(name, tmp_path / "base")
    before = logits_of(model)
    choose_trained(model, AdapterSettings(method=method, r=4), set())
    torch.testing.assert_close(logits_of(model.eval()), before, atol=1e-5, rtol=1e-4)  # an adapter begins as nothing
    disturb(model)
    unmerged = logits_of(model)
    assert float((unmerged - before).abs().max()) > 1e-3
    model.save_pretrained(tmp_path / "adapter")
    model.config.save_pretrained(tmp_path / "adapter")
    settings = Settings.model_validate({"model": {"name": str(tmp_path / "adapter"), "task": TASKS[auto_class]}})
    task = find_task(settings)
    task.auto_class = auto_class  # type: ignore[misc]
    merged = ModelManager(settings, task).load_saved().eval()
    assert not any("lora" in n for n, _ in merged.named_parameters())
    torch.testing.assert_close(logits_of(merged), unmerged, atol=1e-4, rtol=1e-4)


def test_heads_are_trained_and_saved_with_the_adapter(tmp_path: Path) -> None:
    model = made("bert", tmp_path)
    choose_trained(model, AdapterSettings(method="lora"), {"bert.pooler.dense.weight", "bert.pooler.dense.bias"})
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert any(name.startswith("classifier.") for name in trained)
    assert any(name.startswith("bert.pooler.") for name in trained)
    assert all("lora_" in name or "modules_to_save" in name for name in trained)


def test_freeze_trains_the_last_layers_and_the_head(tmp_path: Path) -> None:
    model = made("bert", tmp_path)
    choose_trained(model, AdapterSettings(method="freeze", layers=1), set())
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    expected = {n for n, _ in model.named_parameters() if n.startswith(("bert.encoder.layer.2.", "classifier."))}
    assert trained == expected


def test_a_checkpoint_holds_the_trained_weights_alone_and_puts_them_back(tmp_path: Path) -> None:
    model, again = made("llama", tmp_path), made("llama", tmp_path)
    for each in (model, again):
        choose_trained(each, AdapterSettings(method="lora"), set())
    disturb(model)
    kept = trained_tensors(model)
    assert kept and all("lora_" in name for name in kept)
    restore_model(again, kept)
    torch.testing.assert_close(logits_of(again.eval()), logits_of(model.eval()), atol=0, rtol=0)
    with pytest.raises(ModelError, match="가중치"):
        restore_model(made("llama", tmp_path), kept)


def test_missing_layers_are_reported(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="이 모델에 없는 층입니다: q_proj"):
        choose_trained(made("bert", tmp_path), AdapterSettings(method="lora", target_modules=["q_proj"]), set())
    with pytest.raises(ModelError, match="block"):
        linear_layers(torch.nn.Sequential(torch.nn.Linear(2, 2)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("adapter", "told"),
    [
        ({"method": "lora", "target_modules": ["query", "nope"]}, "이 모델에 없는 층입니다: nope"),
        ({"method": "dora", "target_modules": []}, "어댑터를 붙일 층이 없습니다"),
        ({"method": "freeze", "layers": 3}, "층은 2개인데 마지막 3개"),
    ],
)
def test_modules_that_the_model_lacks_are_refused(adapter: dict[str, Any], told: str, tiny_model: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(tiny_model)
    with pytest.raises(FinetuningError, match=told) as error:
        choose_trained(model, AdapterSettings.model_validate(adapter), set())
    assert error.value.exit_code in (2, 4)
    assert error.value.remedy


def test_every_method_of_the_settings_has_a_row() -> None:
    from typing import get_args

    assert set(METHODS) == set(get_args(AdapterSettings.model_fields["method"].annotation))
