"""Small configs of encoders and of other architectures, for models of random weights."""

from __future__ import annotations

from typing import Any


def config_of(kind: str) -> Any:
    """A tiny config of an architecture, dropout off; RoBERTa's kind counts positions from its padding id plus one."""
    from transformers import AutoConfig

    sizes = {
        "vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 64, "max_position_embeddings": 64, "pad_token_id": 1,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "eos_token_id": 2,
    }  # fmt: skip
    others = {
        "distilbert": {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4, "dropout": 0.0,
                       "attention_dropout": 0.0, "seq_classif_dropout": 0.0, "qa_dropout": 0.0},
        "electra": {"embedding_size": 16, "summary_last_dropout": 0.0},
        "albert": {"embedding_size": 16, "classifier_dropout_prob": 0.0},
        "deberta-v2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
        "longformer": {"attention_window": 4},
        "bart": {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
                 "encoder_attention_heads": 4, "decoder_attention_heads": 4},
        "t5": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4},
        "llama": {"num_key_value_heads": 4},
    }  # fmt: skip
    return AutoConfig.for_model(kind, **{**sizes, **others.get(kind, {})})
