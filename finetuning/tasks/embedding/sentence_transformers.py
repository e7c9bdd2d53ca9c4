"""The files beside a model by which `SentenceTransformer(folder)` makes the same vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetuning.config.schema import EmbeddingSettings

_POOLING = {  # the names of sentence-transformers 2 to 5, which 6 reads as well
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "last": "pooling_mode_lasttoken",
}
_PACKAGE = "sentence_transformers.models"


def description_of(settings: EmbeddingSettings, width: int, max_length: int) -> Mapping[str, Any]:
    """Describe how vectors are made.

    Args:
        settings: Pooling, prefixes and whether vectors are normalised.
        width: Dimensions of a vector.
        max_length: Most tokens of a text.

    Returns:
        JSON values by the file's path below the model's folder.
    """
    parts = [("", "Transformer"), ("1_Pooling", "Pooling"), *([("2_Normalize", "Normalize")] * settings.normalize)]
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"{_PACKAGE}.{name}"}
        for number, (path, name) in enumerate(parts)
    ]
    passage = settings.query_prefix if settings.loss != "infonce" else settings.passage_prefix
    return {
        "modules.json": modules,
        "1_Pooling/config.json": {
            "word_embedding_dimension": width,
            **{name: settings.pooling == pooling for pooling, name in _POOLING.items()},
            "include_prompt": True,
        },
        "sentence_bert_config.json": {"max_seq_length": max_length, "do_lower_case": False},
        "config_sentence_transformers.json": {
            "prompts": {"query": settings.query_prefix, "document": passage, "passage": passage},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine" if settings.normalize or settings.loss != "infonce" else "dot",
        },
    }
