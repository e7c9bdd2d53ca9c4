"""Layer-wise learning rates: how far each weight is below the head, in architectures of differing names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from exceptions import SettingsError
from finetuning.config.schema import TrainingSettings
from finetuning.models.depths import layers_below_head
from finetuning.training.optimizers import make_optimizer

_SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
# class of the config and of the model → a weight of each kind and its depth
EXPECTED: dict[tuple[str, str], dict[str, int]] = {
    ("BertConfig", "BertForSequenceClassification"): {
        "classifier.weight": 0, "bert.pooler.dense.weight": 0, "bert.encoder.layer.2.output.dense.weight": 1,
        "bert.encoder.layer.0.attention.self.query.bias": 3, "bert.embeddings.word_embeddings.weight": 4,
        "bert.embeddings.LayerNorm.weight": 4,
    },
    ("RobertaConfig", "RobertaForTokenClassification"): {
        "classifier.weight": 0, "roberta.encoder.layer.1.output.dense.weight": 2,
        "roberta.embeddings.position_embeddings.weight": 4,
    },
    ("GPTNeoXConfig", "GPTNeoXForCausalLM"): {
        "gpt_neox.final_layer_norm.weight": 0,
        "gpt_neox.layers.2.mlp.dense_h_to_4h.weight": 1, "gpt_neox.embed_in.weight": 4,
    },
    ("LlamaConfig", "LlamaForCausalLM"): {
        "model.norm.weight": 0, "model.layers.0.mlp.up_proj.weight": 3,
        "model.embed_tokens.weight": 4,
    },
}  # fmt: skip


def build(config: str, model: str) -> Any:
    options = {**_SMALL, "tie_word_embeddings": False}
    return getattr(transformers, model)(getattr(transformers, config)(**options))


@pytest.mark.parametrize("names", EXPECTED)
def test_depths_follow_the_structure(names: tuple[str, str]) -> None:
    model = build(*names)
    found, head = layers_below_head(model), model.get_output_embeddings()
    assert head is None or [found[name] for name, p in model.named_parameters() if p is head.weight] == [0]
    assert {name: found[name] for name in EXPECTED[names]} == EXPECTED[names]
    assert set(found.values()) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("names", EXPECTED)
def test_each_weight_has_its_share_of_the_learning_rate(names: tuple[str, str]) -> None:
    model = build(*names)
    optimizer = make_optimizer(model, TrainingSettings(layerwise_lr_decay=0.5), in_backward=False)
    scale = {parameter: group["lr_scale"] for group in optimizer.param_groups for parameter in group["params"]}
    depths = layers_below_head(model)
    assert {name: scale[parameter] for name, parameter in model.named_parameters()} == {
        name: 0.5 ** depths[name] for name in depths
    }
    plain = make_optimizer(model, TrainingSettings(), in_backward=False)
    assert [group["lr_scale"] for group in plain.param_groups] == [1.0, 1.0]


def test_a_model_without_blocks_is_refused() -> None:
    class Flat(torch.nn.Linear):
        config = None

    with pytest.raises(SettingsError, match="층마다 다른 학습률"):
        layers_below_head(Flat(2, 2))  # type: ignore[arg-type]
