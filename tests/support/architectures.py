"""Tiny configs of the architectures that Korean models come in, dropout off and attention windows of a few tokens."""

from __future__ import annotations

from typing import Any

_SIZES = {
    "vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_VISION = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip
_WINDOW = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}

# name → (model type, options beside _SIZES)
CAUSAL: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", _GROUPED),  # Kanana, HyperCLOVA X SEED, EXAONE Deep and many others
    "hyperclovax": ("hyperclovax", {"num_key_value_heads": 2, "logits_scaling": 0.5, "attention_multiplier": 0.3}),
    "exaone4": ("exaone4", {**_GROUPED, **_WINDOW}),
    "gemma": ("gemma", _GROUPED),
    "gemma2": ("gemma2", {**_GROUPED, **_WINDOW, "query_pre_attn_scalar": 8}),
    "gemma3-text": ("gemma3_text", {**_GROUPED, **_WINDOW, "query_pre_attn_scalar": 8}),
    "qwen2": ("qwen2", {"num_key_value_heads": 2}),
    "qwen3": ("qwen3", _GROUPED),
    "phi3": ("phi3", {"num_key_value_heads": 2, "sliding_window": 8, "original_max_position_embeddings": 128}),
    "mistral": ("mistral", {**_GROUPED, "sliding_window": 8}),
    "gpt_neox": ("gpt_neox", {"hidden_dropout": 0.0, "attention_dropout": 0.0}),  # Polyglot-Ko
    "gpt2": ("gpt2", {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}),  # KoGPT2
    "opt": ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 32, "dropout": 0.0}),
}

ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert", _NO_DROPOUT),
    "roberta": ("roberta", {**_NO_DROPOUT, "pad_token_id": 1, "bos_token_id": 0, "type_vocab_size": 1}),  # klue/roberta
    "electra": ("electra", {**_NO_DROPOUT, "embedding_size": 16, "summary_last_dropout": 0.0}),
    "albert": ("albert", {**_NO_DROPOUT, "embedding_size": 16, "classifier_dropout_prob": 0.0}),
    "deberta": ("deberta", {**_NO_DROPOUT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
    "deberta-v2": (
        "deberta-v2",
        {**_NO_DROPOUT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "type_vocab_size": 0,
         "position_biased_input": False, "share_att_key": True, "position_buckets": 16, "norm_rel_ebd": "layer_norm"},
    ),
    "modernbert": ("modernbert", {"local_attention": 8, "cls_token_id": 1, "sep_token_id": 2,
                                  "layer_types": ["sliding_attention", "full_attention"]}),
    "distilbert": ("distilbert", {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4, "dropout": 0.0,
                                  "attention_dropout": 0.0, "seq_classif_dropout": 0.0}),
    "big_bird": ("big_bird", {**_NO_DROPOUT, "block_size": 4, "num_random_blocks": 1,
                              "attention_type": "block_sparse"}),
}  # fmt: skip

_BART = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "dropout": 0.0,
    "attention_dropout": 0.0, "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0,
}  # fmt: skip
_T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4, "dropout_rate": 0.0}
SEQ2SEQ: dict[str, tuple[str, dict[str, Any]]] = {
    "bart": ("bart", {**_BART, "decoder_start_token_id": 2}),
    "t5": ("t5", {**_T5, "decoder_start_token_id": 0}),
    "mt5": ("mt5", {**_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "mbart": ("mbart", _BART),
    "m2m_100": ("m2m_100", {**_BART, "decoder_start_token_id": 2}),
}


def made(kind: tuple[str, dict[str, Any]], **more: Any) -> Any:
    """Build the config of a row of the tables above."""
    from transformers import AutoConfig

    name, options = kind
    return AutoConfig.for_model(name, **{**_SIZES, **options, **more})


def multimodal(kind: str, **more: Any) -> Any:
    """Build the config of a model for text and pictures, with its text's settings nested."""
    from transformers import AutoConfig

    text = {**_SIZES, **_GROUPED, **more}
    options: dict[str, Any] = {
        "gemma3": {
            "text_config": {**text, **_WINDOW, "query_pre_attn_scalar": 8}, "vision_config": _VISION,
            "mm_tokens_per_image": 4, "image_token_index": 5, "boi_token_index": 6, "eoi_token_index": 7,
        },
        "gemma4": {
            "text_config": {
                **text, **_WINDOW, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": text["vocab_size"],
                "global_head_dim": 8,
            },
            "vision_config": {**_VISION, "num_key_value_heads": 2, "head_dim": 8, "position_embedding_size": 64},
            "audio_config": None,
        },
        "llama4": {
            "text_config": {**text, "intermediate_size_mlp": 64, "num_local_experts": 2, "attention_chunk_size": 8},
            "vision_config": {**_VISION, "vision_output_dim": 16, "projector_input_dim": 16,
                              "projector_output_dim": 16},
        },
    }[kind]  # fmt: skip
    return AutoConfig.for_model(kind, **options)
