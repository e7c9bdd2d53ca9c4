"""Small causal language models of several architectures, and examples for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from finetuning.ops.dense_attention import without_padding


def causal_architectures() -> dict[str, Any]:
    from transformers import GPT2Config, GPTNeoXConfig, LlamaConfig, Qwen2Config

    common = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    wide = {**common, "intermediate_size": 64, "max_position_embeddings": 128}
    return {
        "llama": LlamaConfig(**wide, num_key_value_heads=2),
        "qwen2": Qwen2Config(**wide, num_key_value_heads=2),
        "gpt_neox": GPTNeoXConfig(**wide, hidden_dropout=0.0, attention_dropout=0.0),
        "gpt2": GPT2Config(
            vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=128, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
        ),
    }


class PadToken:
    pad_token_id = 0


def examples_of(seed: int, count: int) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    made = []
    for length in random.integers(2, 30, count):
        trained = random.random(length) < 0.6
        trained[-1] = True
        made.append({"input_ids": random.integers(1, 97, length).tolist(), "trained": trained.tolist()})
    return made


def loss_and_gradient(model: Any, task: Any, batches: list[Any]) -> tuple[float, torch.Tensor]:
    items, total = sum(batch.items for batch in batches), 0.0
    model.zero_grad()
    for batch in batches:
        with without_padding(model, batch.dense):
            loss = task.scores.loss_sum(task.scores.forward(model, batch), batch) / items
            loss.backward()
        total += float(loss.detach())
    return total, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def windowed(kind: str, window: int) -> Any:
    """A causal model of layers with an attention window, but for Mistral beside layers without."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    wide = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    options: dict[str, Any] = {**wide, "num_key_value_heads": 2, "intermediate_size": 64, "sliding_window": window}
    if kind != "mistral":
        options["layer_types"] = ["sliding_attention", "full_attention"]
    if kind == "gemma3_text":
        options |= {"head_dim": 8, "query_pre_attn_scalar": 8}
    if kind == "qwen2":
        options["use_sliding_window"] = True
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **options)).train()
