"""Small causal language models of several architectures, and examples for them."""

from __future__ import annotations

from typing import Any

import numpy as np


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
