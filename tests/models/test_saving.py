"""What saving a model writes over and removes: its own names alone."""

from __future__ import annotations

from pathlib import Path

from finetuning.models.saving import save_pretrained


def test_files_of_the_users_beside_a_model_are_left_alone(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    model, tokenizer = AutoModelForMaskedLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    theirs = ["model-notes.txt", "adapter_results.csv", "model-old", "model.safetensors.bak", "adapter_model.txt"]
    stale = ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "adapter_model.safetensors"]
    for name in (*theirs, *stale, "adapter_config.json"):
        (tmp_path / name).mkdir() if name == "model-old" else (tmp_path / name).touch()
    save_pretrained(model, tokenizer, tmp_path, None)
    left = {path.name for path in tmp_path.iterdir()}
    assert left >= {*theirs, "model.safetensors", "config.json", "tokenizer.json"}
    assert not left & {*stale, "adapter_config.json"}
