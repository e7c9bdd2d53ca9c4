"""An adapter through the command line: trained, stopped, resumed, evaluated, exported, and loaded by others."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.cli import Cli, arguments_for
from tests.support.forked import stop_at
from tests.support.runs import final_state, losses


def test_an_adapter_from_training_to_export(cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path) -> None:
    flags = ["--epochs", "2", "--set", "model.adapter.method=lora", "--set", "model.adapter.r=4"]
    whole, halved = tmp_path / "whole" / "model", tmp_path / "halved" / "model"
    run = cli(*arguments_for(tiny_model, reviews, whole, *flags))
    assert run.code == 0, run.err
    assert {"adapter_model.safetensors", "adapter_config.json", "config.json"} <= {p.name for p in whole.iterdir()}
    assert not (whole / "model.safetensors").exists()
    checkpoint = load_file(tmp_path / "whole" / "checkpoint-latest" / "model.safetensors")
    assert all("lora_" in name or "modules_to_save" in name for name in checkpoint)

    code, log = stop_at(arguments_for(tiny_model, reviews, halved, *flags), "epoch 1 스텝 6/", signal.SIGINT)
    assert code == 130, log
    resumed = cli(*arguments_for(tiny_model, reviews, halved, *flags, "--resume"))
    assert resumed.code == 0, resumed.err
    assert losses(halved) == losses(whole)
    assert final_state(halved) == final_state(whole)

    texts = ["정말 재미있다", "너무 지루하다"]
    predicted = cli("predict", "--no-mixed_precision", "--output_dir", whole, stdin="\n".join(texts))
    assert predicted.code == 0, predicted.err
    exported = cli("export", "--output_dir", whole, "--output", tmp_path / "plain")
    assert exported.code == 0, exported.err
    from transformers import pipeline

    found = pipeline("text-classification", model=str(tmp_path / "plain"), device="cpu")(texts)
    for line, expected in zip(predicted.out.splitlines(), found, strict=True):
        record = json.loads(line)
        assert record["label"] == expected["label"]
        assert record["score"] == pytest.approx(expected["score"], abs=1e-4)
    usage = re.findall(r"```python\n(.*?)```", (whole / "README.md").read_text(encoding="utf-8"), re.S)[0]
    names: dict[str, Any] = {}
    exec(usage.replace("이 폴더의 경로", str(whole)), names)
    with torch.no_grad():
        scores = names["model"].eval()(**names["tokenizer"](texts[0], return_tensors="pt")).logits.softmax(-1)
    assert float(scores.max()) == pytest.approx(json.loads(predicted.out.splitlines()[0])["score"], abs=1e-4)

    again = cli("export", "--output_dir", whole, "--model_name", tmp_path / "plain")
    assert again.code == 2
    assert "합칠 것이 없습니다" in again.err
