"""Several adapters as one model: each adds its weight's part of its change, and what cannot be added is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finetuning.config.schema import AdapterSettings
from finetuning.models.adapters import choose_trained
from tests.support.cli import Cli, read_json
from tests.support.models import disturb


def adapter(base: Path, folder: Path, auto_class: str, **settings: Any) -> Path:
    """An adapter that training has changed, in a folder as a run leaves it."""
    import transformers

    model = getattr(transformers, auto_class).from_pretrained(base)
    choose_trained(model, AdapterSettings.model_validate({"method": "lora", **settings}), set())
    disturb(model)
    model.save_pretrained(folder)
    model.config.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    (folder / "settings.yaml").write_text("model:\n  task: text-generation\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def first(tiny_causal: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adapter(tiny_causal, tmp_path_factory.mktemp("first") / "a", "AutoModelForCausalLM", r=4, rslora=True)


def test_a_sum_of_adapters_is_the_base_and_the_part_of_each_change(
    cli: Cli, tiny_causal: Path, first: Path, tmp_path: Path
) -> None:
    second = adapter(
        tiny_causal, tmp_path / "b", "AutoModelForCausalLM", r=8, alpha=8, target_modules=["q_proj", "down_proj"]
    )
    run = cli("export", "--adapters", f"{first}=0.7", f"{second}=-0.3", "--output", tmp_path / "sum")
    assert run.code == 0, run.err
    assert f"{first} × 0.7, {second} × -0.3" in run.err
    base, summed = (load_file(folder / "model.safetensors") for folder in (tiny_causal, tmp_path / "sum"))
    expected = {name: weight.clone() for name, weight in base.items()}
    for folder, share, scale in ((first, 0.7, 32 / 4**0.5), (second, -0.3, 8 / 8)):
        weights = load_file(folder / "adapter_model.safetensors")
        for name in [key for key in weights if key.endswith("lora_A.weight")]:
            change = weights[name.replace("lora_A", "lora_B")] @ weights[name]
            changed = name.removeprefix("base_model.model.").replace("lora_A.weight", "weight")
            expected[changed] += share * scale * change
    assert summed.keys() == expected.keys()
    for name, weight in summed.items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-4, atol=1e-5)
    assert sorted(read_json(tmp_path / "sum" / "export.json")["adapters"].values()) == [-0.3, 0.7]


def test_adapters_that_cannot_be_added_are_named(
    cli: Cli, tiny_causal: Path, tiny_seq2seq: Path, first: Path, tmp_path: Path
) -> None:
    dora = adapter(tiny_causal, tmp_path / "dora", "AutoModelForCausalLM", r=4, method="dora")
    head = adapter(tiny_causal, tmp_path / "head", "AutoModelForSequenceClassification", r=4)
    other = adapter(tiny_seq2seq, tmp_path / "other", "AutoModelForSeq2SeqLM", r=4)
    cases: dict[str, tuple[str, ...]] = {
        "LoRA 어댑터만": (f"{first}=1", f"{dora}=1"),
        "head나 임베딩까지": (f"{first}=1", f"{head}=1"),
        "베이스 모델이 다른": (f"{first}=1", f"{other}=1"),
        "두 개 이상": (f"{first}=1",),
        "어댑터 폴더가 아닙니다": (f"{first}=1", f"{tiny_causal}=1"),
        "=로 이어 써야": (str(first), f"{first}=1"),
    }
    for said, shares in cases.items():
        run = cli("export", "--adapters", *shares, "--output", tmp_path / "sum")
        assert run.code == 2 and said in run.err, (said, run.err)
    run = cli("export", "--adapters", f"{first}=1", f"{first}=1")
    assert run.code == 2 and "--output" in run.err
    assert not (tmp_path / "sum").exists()
