"""Models as they are saved: what others load, and nothing of this run's that should not be in it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoTokenizer

from exceptions import ModelError
from finetuning.config.schema import Settings
from finetuning.tasks.registry import find_task
from model_manager import ModelManager


def manager_of(model: Path, **settings: object) -> ModelManager:
    made = Settings.model_validate({"model": {"name": str(model), "task": "fill-mask", **settings}})
    return ModelManager(made, find_task(made))


def test_tied_weights_are_written_once_in_another_dtype(tiny_model: Path, tmp_path: Path) -> None:
    manager = manager_of(tiny_model, save_dtype="float16")
    model, tokenizer = manager.load_model(()), manager.load_tokenizer()
    manager.save(model, tokenizer, tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names = set(file.keys())
        assert {str(file.get_tensor(name).dtype) for name in names} == {"torch.float16"}
    assert "cls.predictions.decoder.weight" not in names
    again = manager_of(tmp_path).load_model(())
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor.half().float()), name


def test_an_adapter_beside_a_quantised_base_is_saved_in_another_dtype(tiny_model: Path, tmp_path: Path) -> None:
    manager = manager_of(tiny_model, adapter={"method": "lora"}, save_dtype="float16")
    model, tokenizer = manager.load_model(()), manager.load_tokenizer()
    quantiser = SimpleNamespace(get_state_dict_and_metadata=lambda _model: (None, {}))  # as those of transformers
    model.hf_quantizer = quantiser  # type: ignore[assignment]
    manager.save(model, tokenizer, tmp_path)
    assert model.hf_quantizer is quantiser
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float16}


def test_the_length_texts_were_cut_at_is_not_saved_with_the_tokenizer(tiny_model: Path, tmp_path: Path) -> None:
    manager = manager_of(tiny_model)
    tokenizer = manager.load_tokenizer()
    tokenizer("정말 재미있다", truncation=True, max_length=4)
    manager.save(manager.load_model(()), tokenizer, tmp_path)
    assert json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))["truncation"] is None


@pytest.mark.parametrize("segments", [1, 2])
def test_a_pair_has_only_the_segments_that_the_model_has(tiny_model: Path, tmp_path: Path, segments: int) -> None:
    folder = tmp_path / "one"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "type_vocab_size": segments}), encoding="utf-8")
    manager = manager_of(folder)
    tokenizer = manager.load_tokenizer()
    assert ("token_type_ids" in tokenizer("정말", "좋다")) == (segments == 2)
    tokenizer.save_pretrained(tmp_path / "saved")
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert ("token_type_ids" in again("정말", "좋다")) == (segments == 2)


def test_a_model_that_was_not_trained_for_the_task_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="text-classification 태스크로 학습한 모델이 아닙니다") as error:
        manager_of(tiny_model, task="text-classification").load_saved()
    assert "없는 가중치: " in error.value.where
    scorer = manager_of(tiny_model, task="text-regression")
    scorer.save(scorer.load_model(()), scorer.load_tokenizer(), tmp_path)
    assert manager_of(tmp_path, task="text-regression").load_saved().config.num_labels == 1
    with pytest.raises(ModelError) as error:
        manager_of(tmp_path, task="text-classification").load_saved()
    assert "regression" in error.value.where


def test_a_run_leaves_weights_of_one_kind(tiny_model: Path, tmp_path: Path) -> None:
    """Whole weights beside an adapter would be loaded into each other."""
    kinds = {"none": "model.safetensors", "lora": "adapter_model.safetensors"}
    for method in ("none", "lora", "none"):
        manager = manager_of(tiny_model, adapter={"method": method})
        manager.save(manager.load_model(()), manager.load_tokenizer(), tmp_path)
        assert [path.name for path in tmp_path.glob("*.safetensors")] == [kinds[method]]


@pytest.mark.parametrize("name", ["내 모델", "models/내_모델", "my model", "./models/none"])
def test_a_name_that_no_model_of_the_hub_has_is_a_missing_folder(name: str) -> None:
    settings = Settings.model_validate({"model": {"name": name}})
    with pytest.raises(ModelError, match="모델 폴더가 없습니다"):
        ModelManager(settings, find_task(settings)).load_config()
