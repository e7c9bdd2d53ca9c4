"""Weights that are written one at a time: the files are those that transformers writes of all of them."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel
from transformers.core_model_loading import Chunk, WeightConverter

from finetuning.device import sharding
from finetuning.device.sharding import Gathering
from finetuning.models import streamed
from finetuning.models.saving import save_pretrained
from tests.support.architectures import CAUSAL, ENCODERS, made

_MIXTRAL: tuple[str, dict[str, Any]] = ("mixtral", {"num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 4})
_PARTS = [f"self_attn.{name}_proj.weight" for name in "qkv"]


def model_of(kind: str) -> PreTrainedModel:
    if kind == "bert":
        bert: PreTrainedModel = AutoModelForMaskedLM.from_config(made(ENCODERS["bert"]))
        return bert
    row = _MIXTRAL if kind == "mixtral" else CAUSAL["llama"]
    causal: PreTrainedModel = AutoModelForCausalLM.from_config(made(row, tie_word_embeddings=kind == "tied"))
    if kind == "joined":  # files that have one weight where the model has three, all of the same rows
        causal.config.num_key_value_heads = 4
        causal = AutoModelForCausalLM.from_config(causal.config)
        causal._weight_conversions = [WeightConverter("self_attn.qkv_proj.weight", _PARTS, operations=[Chunk(dim=0)])]
    return causal


class Tokenizer:
    """A tokenizer of which this file needs nothing."""

    def save_pretrained(self, folder: Path) -> None:
        (folder / "tokenizer_config.json").write_text("{}", encoding="utf-8")


def weights_in(folder: Path) -> dict[str, torch.Tensor]:
    return {name: one for path in folder.glob("*.safetensors") for name, one in load_file(path).items()}


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
@pytest.mark.parametrize("kind", ["untied", "tied", "bert", "mixtral", "joined"])
def test_a_gathered_model_is_saved_as_a_whole_one(kind: str, dtype: str | None, tmp_path: Path) -> None:
    model, tokenizer = model_of(kind), Tokenizer()
    for folder, weights in (("whole", None), ("gathered", Gathering(model.state_dict(keep_vars=True)))):
        (tmp_path / folder).mkdir()
        save_pretrained(model, tokenizer, tmp_path / folder, dtype, weights=weights)  # type: ignore[arg-type]
    whole, gathered = tmp_path / "whole", tmp_path / "gathered"
    expected, found = weights_in(whole), weights_in(gathered)
    assert found.keys() == expected.keys()
    assert ("model.layers.0.self_attn.qkv_proj.weight" in found) == (kind == "joined")
    for name, weight in expected.items():
        assert torch.equal(found[name], weight) and found[name].dtype == weight.dtype, name
    others = sorted(path.name for path in whole.iterdir())
    assert sorted(path.name for path in gathered.iterdir()) == others
    assert (gathered / "config.json").read_bytes() == (whole / "config.json").read_bytes()


def test_large_files_are_divided_as_transformers_divides_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, limit = model_of("tied"), 20_000
    monkeypatch.setattr(streamed, "_FILE_BYTES", limit)
    for folder in ("whole", "gathered"):
        (tmp_path / folder).mkdir()
    model.save_pretrained(tmp_path / "whole", max_shard_size=limit)
    save_pretrained(
        model, Tokenizer(), tmp_path / "gathered", None, weights=Gathering(model.state_dict(keep_vars=True))
    )  # type: ignore[arg-type]
    index, expected = (
        json.loads((tmp_path / folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
        for folder in ("gathered", "whole")
    )
    assert len(set(index["weight_map"].values())) > 2
    assert index["metadata"] == expected["metadata"] and index["weight_map"].keys() == expected["weight_map"].keys()
    for path in (tmp_path / "gathered").glob("*.safetensors"):
        assert sum(one.nbytes for one in load_file(path).values()) <= limit
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "gathered").state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in model.state_dict().items())


def test_no_two_whole_weights_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("mixtral")
    made: list[weakref.ref[torch.Tensor]] = []

    def gathered(tensor: torch.Tensor) -> torch.Tensor:
        assert all(one() is None for one in made)
        copy = tensor.detach().clone()
        made.append(weakref.ref(copy.untyped_storage()))  # type: ignore[arg-type]
        return copy

    monkeypatch.setattr(sharding, "whole", gathered)
    save_pretrained(model, Tokenizer(), tmp_path, "bfloat16", weights=Gathering(model.state_dict(keep_vars=True)))  # type: ignore[arg-type]
    assert len(made) == len(model.state_dict())
