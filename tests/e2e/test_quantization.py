"""Quantised base weights through the command line: trained, evaluated, exported, and refused where they must be."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.support.cli import Cli, data_flags

LORA = ("--set", "model.adapter.method=lora")


def flags_for(model: Path, folder: Path, *more: str) -> list[str]:
    rows = [f"안녕 {number},반가워 {number % 3}" for number in range(24)]
    (folder / "chat.csv").write_text("\n".join(["prompt,response", *rows]) + "\n", encoding="utf-8")
    return [
        "--model_name", str(model), "--task", "text-generation", "--dataset", str(folder / "chat.csv"),
        "--output_dir", str(folder / "model"), "--batch_size", "8", "--gradient_accumulation_steps", "1",
        "--epochs", "1", "--learning_rate", "1e-2", "--max_length", "64", "--set", "generation.max_new_tokens=4",
        "--set", f"data.dataset_cache_dir={folder / 'cache'}", *more,
    ]  # fmt: skip


def test_weights_that_are_trained_cannot_be_quantised(cli: Cli, tiny_causal: Path, tmp_path: Path) -> None:
    run = cli(*flags_for(tiny_causal, tmp_path, "--set", "model.quantization=4bit"))
    assert run.code == 2
    assert "LoRA나 DoRA가 필요합니다" in run.err and "model.adapter.method: none" in run.err
    assert not (tmp_path / "model").exists()


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_a_missing_package_is_reported_before_loading(cli: Cli, tmp_path: Path) -> None:
    run = cli(*flags_for(tmp_path / "no-model", tmp_path, *LORA, "--set", "model.quantization=4bit"))
    assert run.code == 2
    assert "pip install bitsandbytes" in run.err
    assert not (tmp_path / "model").exists()


def test_from_training_to_export(cli: Cli, tiny_causal: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    output_dir = tmp_path / "model"
    run = cli(*flags_for(tiny_causal, tmp_path, *LORA, "--set", "model.quantization=4bit"))
    assert run.code == 0, run.err
    checkpoint = load_file(tmp_path / "checkpoint-latest" / "model.safetensors")
    assert checkpoint and all("lora_" in name for name in checkpoint)
    assert "quantization" not in (output_dir / "config.json").read_text(encoding="utf-8")
    summary = json.loads((output_dir / "summary.json").read_text(encoding="utf-8"))
    losses = {}
    for name, more in {"quantised": [], "whole": ["--set", "model.quantization=null"]}.items():
        evaluated = cli("evaluate", "--output_dir", output_dir, *data_flags(output_dir), "--split", "validation", *more)
        assert evaluated.code == 0, evaluated.err
        losses[name] = json.loads((output_dir / "metrics-validation.json").read_text(encoding="utf-8"))["loss"]
    assert losses["quantised"] == pytest.approx(summary["validation"]["loss"], rel=1e-6)
    assert losses["whole"] != pytest.approx(losses["quantised"], rel=1e-6)
    assert losses["whole"] == pytest.approx(losses["quantised"], rel=0.05)

    exported = cli("export", "--output_dir", output_dir, "--output", tmp_path / "plain")
    assert exported.code == 0, exported.err
    base, merged = load_file(tiny_causal / "model.safetensors"), load_file(tmp_path / "plain" / "model.safetensors")
    adapter = load_file(output_dir / "adapter_model.safetensors")
    assert base.keys() <= merged.keys() | {"lm_head.weight"}
    for name in base.keys() & merged.keys():
        kind = name.removesuffix(".weight")
        halves = [adapter.get(f"base_model.model.{kind}.lora_{half}.weight") for half in "BA"]
        delta = 2.0 * halves[0] @ halves[1] if halves[0] is not None and halves[1] is not None else 0.0  # 32 / 16
        assert float((merged[name] - (base[name] + delta)).abs().max()) < 1e-6, name
