"""GGUF models: the weights and tokens of the model they were written from, and errors for unreadable files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exceptions import ModelError, SettingsError
from finetuning.config.schema import Settings
from finetuning.models.combinations import check_combination
from finetuning.models.gguf_reader import explain
from finetuning.tasks.registry import find_task
from model_manager import ModelManager
from tests.support.cli import Cli, data_flags

_OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_INNER = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def write_gguf(model: Any, tokens: list[str], path: Path, quantised: bool) -> None:
    """Write a Llama as llama.cpp's converter does: with its names, and heads interleaved for its rotary embedding."""
    import gguf

    config, blocks = model.config, gguf.GGMLQuantizationType.Q8_0
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types([3] + [1] * (len(tokens) - 1))
    writer.add_token_merges([f"{tokens[-1][0]} {tokens[-1][1]}"])
    writer.add_eos_token_id(0)
    for name, tensor in model.state_dict().items():
        module, array = name.removesuffix(".weight"), tensor.numpy()
        if module not in _OUTER:
            _, _, block, module = module.split(".", 3)
        heads = {"self_attn.q_proj": config.num_attention_heads, "self_attn.k_proj": config.num_key_value_heads}
        if module in heads:
            halves = array.reshape(heads[module], 2, -1, array.shape[1])
            array = np.ascontiguousarray(halves.swapaxes(1, 2).reshape(array.shape))
        theirs = f"{_OUTER[module]}.weight" if module in _OUTER else f"blk.{block}.{_INNER[module]}.weight"
        if quantised and array.ndim == 2:
            writer.add_tensor(theirs, gguf.quants.quantize(array, blocks), raw_dtype=blocks)
        else:
            writer.add_tensor(theirs, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=258, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=64, max_position_embeddings=256, eos_token_id=0, bos_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config)


@pytest.fixture(scope="module")
def files(llama: Any, tiny_causal: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same Llama in float32 and in blocks of 8 bits, with the byte-level tokenizer and one merge."""
    pytest.importorskip("gguf", reason="gguf is not installed")
    vocabulary = json.loads((tiny_causal / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    tokens = [*sorted(vocabulary, key=lambda piece: vocabulary[piece]), "ìķ"]
    folder = tmp_path_factory.mktemp("gguf")
    made = {"float32": folder / "tiny.gguf", "q8_0": folder / "tiny-q8_0.gguf"}
    for kind, path in made.items():
        write_gguf(llama, tokens, path, kind == "q8_0")
    return made


def manager_of(name: Path, task: str = "text-generation", **model: object) -> ModelManager:
    settings = Settings.model_validate({"model": {"name": str(name), "task": task, **model}})
    return ModelManager(settings, find_task(settings))


@pytest.mark.parametrize(("kind", "tolerance"), [("float32", 0.0), ("q8_0", 1e-3)])
def test_a_gguf_model_has_the_weights_it_was_written_from_and_saves_them(
    kind: str, tolerance: float, files: dict[str, Path], llama: Any, tmp_path: Path
) -> None:
    manager = manager_of(files[kind])
    tokenizer, model = manager.load_tokenizer(), manager.load_model(())
    assert tokenizer.decode(tokenizer("안녕 hi")["input_ids"]) == "안녕 hi"
    assert 257 in tokenizer("안")["input_ids"]  # the merge was read, too
    assert model.state_dict().keys() == llama.state_dict().keys()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, llama.state_dict()[name], atol=tolerance, rtol=0)
    assert all(parameter.requires_grad for parameter in model.parameters())
    manager.save(model, tokenizer, tmp_path)
    assert "quantization" not in (tmp_path / "config.json").read_text(encoding="utf-8")
    again = manager_of(tmp_path)
    assert again.load_tokenizer()("안녕")["input_ids"] == tokenizer("안녕")["input_ids"]
    for name, tensor in again.load_saved().state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_it_classifies_with_a_new_head_and_with_an_adapter(files: dict[str, Path], tmp_path: Path) -> None:
    manager = manager_of(files["float32"], "text-classification", adapter={"method": "lora"})
    model = manager.load_model(("부정", "긍정"))
    assert model.score.weight.shape[0] == 2
    model.config.pad_token_id = 0
    manager.save(model, manager.load_tokenizer(), tmp_path)
    merged = manager_of(tmp_path, "text-classification").load_saved().eval()  # its base is found in the file again
    ids = torch.arange(10, 20)[None]
    with torch.no_grad():
        torch.testing.assert_close(merged(input_ids=ids).logits, model.eval()(input_ids=ids).logits)


def test_from_training_to_evaluation(cli: Cli, files: dict[str, Path], reviews: Path, tmp_path: Path) -> None:
    output_dir = tmp_path / "model"
    run = cli(
        "--model_name", files["float32"], "--task", "text-generation", "--dataset", reviews / "train.csv",
        "--output_dir", output_dir, "--epochs", "1", "--max_length", "64", "--set", "generation.max_new_tokens=2",
        "--set", f"data.dataset_cache_dir={tmp_path / 'cache'}", "--set", "text_generation.format=text",
    )  # fmt: skip
    assert run.code == 0, run.err
    assert (output_dir / "model.safetensors").exists()
    evaluated = cli("evaluate", "--output_dir", output_dir, *data_flags(output_dir), "--split", "validation")
    assert evaluated.code == 0, evaluated.err
    losses = [json.loads((output_dir / name).read_text(encoding="utf-8")) for name in
              ("summary.json", "metrics-validation.json")]  # fmt: skip
    assert losses[1]["loss"] == pytest.approx(losses[0]["validation"]["loss"], rel=1e-4)


@pytest.mark.parametrize("how", ["cut", "head", "other", "empty"])
def test_a_broken_file_is_reported(how: str, files: dict[str, Path], tmp_path: Path) -> None:
    whole = files["float32"].read_bytes()
    broken = {"cut": whole[: len(whole) // 2], "head": whole[:200], "other": b"no model" * 100, "empty": b""}[how]
    (tmp_path / "broken.gguf").write_bytes(broken)
    with pytest.raises(ModelError, match="깨졌거나 일부가 없습니다"):
        manager_of(tmp_path / "broken.gguf").load_tokenizer()


def test_an_unsupported_kind_is_reported_with_the_supported_ones(files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "other.gguf").write_bytes(files["float32"].read_bytes().replace(b"llama", b"xyzzy"))
    with pytest.raises(ModelError, match="xyzzy") as error:
        manager_of(tmp_path / "other.gguf").load_tokenizer()
    assert "Llama" in error.value.remedy


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="GGUF 파일이 없습니다"):
        manager_of(tmp_path / "none.gguf").load_tokenizer()
    missing = ImportError("Please install torch and gguf>=0.10.0 to load a GGUF checkpoint in PyTorch.")
    assert "pip install gguf" in explain(missing, "some.gguf").remedy
    both = {"name": "some.gguf", "quantization": "4bit", "adapter": {"method": "lora"}}
    with pytest.raises(SettingsError, match="다시 양자화할 수 없습니다"):
        check_combination(Settings.model_validate({"model": both}))
