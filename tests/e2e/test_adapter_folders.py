"""An adapter's folder as other programs and other folders see it: peft, transformers, the card, a base that moved."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.version import Version

from finetuning.config.origins import Origins
from finetuning.config.schema import Settings
from finetuning.models.continued import decided_by_adapter
from finetuning.tasks.registry import find_task
from model_manager import ModelManager
from tests.support.cli import Cli, arguments_for, read_json
from tests.support.runs import StopAfter, check_resumed_is_whole, run_train

LORA = ["--set", "model.adapter.method=lora", "--set", "model.adapter.r=4", "--epochs", "1"]
KINDS = {
    "text-generation": ("AutoPeftModelForCausalLM", "CAUSAL_LM"),
    "text2text-generation": ("AutoPeftModelForSeq2SeqLM", "SEQ_2_SEQ_LM"),
    "text-classification": ("AutoPeftModelForSequenceClassification", "SEQ_CLS"),
    "token-classification": ("AutoPeftModelForTokenClassification", "TOKEN_CLS"),
    "question-answering": ("AutoPeftModelForQuestionAnswering", "QUESTION_ANS"),
}
PIPELINES = ("text-generation", "text-classification", "token-classification")


def pipelines_load_heads() -> bool:
    """Whether transformers' pipeline reads the head that an adapter's folder has: 5.17 leaves it random, 5.23 does."""
    import transformers

    return Version(transformers.__version__) >= Version("5.23")


def merged(task: str, folder: Path) -> Any:
    settings = Settings.model_validate({"model": {"name": str(folder), "task": task}})
    return ModelManager(settings, find_task(settings)).load_saved().eval()


@pytest.mark.parametrize("task", KINDS)
def test_an_adapter_loads_in_peft_in_transformers_and_by_its_card(
    task: str, flags_for: Callable[[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import peft
    from transformers import AutoConfig, pipeline

    flags, folder = flags_for(task), tmp_path / "out" / "model"
    base = Path(flags[flags.index("--model_name") + 1])
    monkeypatch.chdir(base.parent)
    run_train([*flags, *LORA, "--model_name", f"./{base.name}", "--output_dir", str(folder)], StopAfter())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    described, config = read_json(folder / "adapter_config.json"), AutoConfig.from_pretrained(folder)
    assert (described["task_type"], described["base_model_name_or_path"]) == (KINDS[task][1], str(base))
    expected = _outputs(merged(task, folder))
    labels = {"num_labels": config.num_labels} if task == "token-classification" else {}
    found = getattr(peft, KINDS[task][0]).from_pretrained(folder, **labels).eval()
    assert torch.allclose(_outputs(found), expected, atol=1e-5)
    if task in PIPELINES and (task == "text-generation" or pipelines_load_heads()):
        made = pipeline(task, model=str(folder), device="cpu")
        assert torch.allclose(_outputs(made.model), expected, atol=1e-5)
        assert made.model.config.id2label == config.id2label
        assert isinstance(made("정말 재미있다"), list)
    usage = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.S)[0]
    names: dict[str, Any] = {}
    exec(usage.replace("이 폴더의 경로", str(folder)), names)
    assert torch.allclose(_outputs(names["model"].eval()), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["safetensors", "shards", "bin"])
def test_an_adapter_on_a_model_of_the_hub_finds_what_was_downloaded(
    flags_for: Callable[[str], list[str]], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    from safetensors.torch import load_file
    from transformers import AutoModelForMaskedLM, pipeline

    cache, folder = tmp_path / "hub", tmp_path / "model"
    base = shutil.copytree(tiny_model, cache / "models--somebody--tiny" / "snapshots" / "0123abcd")
    if kind == "shards":
        (base / "model.safetensors").unlink()
        AutoModelForMaskedLM.from_pretrained(tiny_model).save_pretrained(base, max_shard_size="20KB")
    elif kind == "bin":
        torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")
        (base / "model.safetensors").unlink()
    (cache / "models--somebody--tiny" / "refs").mkdir()
    (cache / "models--somebody--tiny" / "refs" / "main").write_text("0123abcd", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    flags = [*flags_for("text-classification"), *LORA, "--model_name", "somebody/tiny", "--cache_dir", "./hub"]
    run_train([*flags, "--output_dir", str(folder)], StopAfter())
    assert read_json(folder / "adapter_config.json")["base_model_name_or_path"] == "somebody/tiny"
    monkeypatch.chdir("/")
    made = pipeline("text-classification", model=str(folder), device="cpu")
    assert made("정말 재미있다")[0]["label"] in ("긍정", "부정")
    if not pipelines_load_heads():
        return
    monkeypatch.chdir(tmp_path)
    settings = Settings.model_validate({"model": {"name": str(folder), "cache_dir": "./hub"}})
    whole = ModelManager(settings, find_task(settings)).load_saved().eval()
    assert torch.allclose(_outputs(made.model), _outputs(whole), atol=1e-5)


def test_an_adapter_of_a_task_without_a_name_in_peft_names_its_class(
    flags_for: Callable[[str], list[str]], tmp_path: Path
) -> None:
    from peft import AutoPeftModel

    folder = tmp_path / "model"
    run_train([*flags_for("fill-mask"), *LORA, "--output_dir", str(folder)], StopAfter())
    found = AutoPeftModel.from_pretrained(folder).eval()
    assert torch.allclose(_outputs(found), _outputs(merged("fill-mask", folder)), atol=1e-5)


def test_a_base_that_moved_is_told_and_a_relative_one_is_found(
    cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path
) -> None:
    base, folder = shutil.copytree(tiny_model, tmp_path / "base"), tmp_path / "out" / "model"
    trained = cli(*arguments_for(base, reviews, folder, *LORA))
    assert trained.code == 0, trained.err
    predict = ["predict", "--output_dir", folder]
    whole = cli(*predict, stdin="정말 재미있다\n")
    assert whole.code == 0, whole.err
    base.rename(tmp_path / "moved")
    run = cli(*predict, stdin="정말 재미있다\n")
    assert run.code == 4, run.err
    assert "베이스 모델을 찾을 수 없습니다" in run.err and str(base) in run.err and "adapter_config.json" in run.err
    config = read_json(folder / "adapter_config.json")
    for path in ("./moved", "moved", str(tmp_path / "moved")):
        written = json.dumps({**config, "base_model_name_or_path": path})
        (folder / "adapter_config.json").write_text(written, encoding="utf-8")
        run = cli(*predict, cwd=tmp_path / "out", stdin="정말 재미있다\n")
        assert (run.code, run.out) == (0, whole.out), run.err


def test_another_method_than_the_adapters_asks_for_a_merged_model(
    cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "first" / "model"
    assert cli(*arguments_for(tiny_model, reviews, folder, *LORA)).code == 0
    again = ("--epochs", 1, "--set")
    run = cli(*arguments_for(folder, reviews, tmp_path / "second", *again, "model.adapter.method=freeze"))
    assert run.code == 2, run.err
    assert f"export --model_name {folder}" in run.err and f"--model_name {folder / 'merged'}" in run.err
    run = cli(*arguments_for(folder, reviews, tmp_path / "second", *again, "model.adapter.r=8"))
    assert run.code == 2 and "model.adapter.r: 어댑터 4 / 설정 8" in run.err, run.err
    exported = cli("export", "--model_name", folder)
    assert exported.code == 0, exported.err
    run = cli(*arguments_for(folder / "merged", reviews, tmp_path / "second", *again, "model.adapter.method=lora"))
    assert run.code == 0, run.err


@pytest.mark.parametrize("task", ["text-generation", "text2text-generation", "text-classification"])
def test_a_new_run_goes_on_with_a_saved_adapter(
    task: str, flags_for: Callable[[str], list[str]], tmp_path: Path
) -> None:
    """It begins where the first run ended, keeps its base, and stops and resumes as any run does."""
    from peft import PeftConfig

    flags, first = flags_for(task), tmp_path / "first" / "model"
    run_train([*flags, *LORA, "--set", "model.adapter.rslora=true", "--output_dir", str(first)], StopAfter())
    again = [*flags, "--model_name", str(first)]
    settings = settings_of([*again, "--no-mixed_precision"])
    told = Origins(adapter=decided_by_adapter(settings)).of(settings, "model.adapter.method")
    assert told == "이어서 학습하는 어댑터"
    models = ModelManager(settings, find_task(settings))
    names = models.label_names()
    begun = models.load_model(names).eval()
    assert torch.allclose(_outputs(begun), _outputs(merged(task, first)), atol=1e-5)
    trained = [name for name, parameter in begun.named_parameters() if parameter.requires_grad]
    assert trained and all("lora_" in name or "modules_to_save" in name for name in trained)
    outline = models.outline(names)
    assert [name for name, parameter in outline.named_parameters() if parameter.requires_grad] == trained
    check_resumed_is_whole(again, StopAfter(looks=3), tmp_path)
    second = tmp_path / "whole" / "model"
    config = PeftConfig.from_pretrained(second)
    assert (config.r, config.use_rslora) == (4, True)
    assert config.base_model_name_or_path == flags[flags.index("--model_name") + 1]
    assert "r: 4" in (second / "settings.yaml").read_text(encoding="utf-8")
    assert not torch.allclose(_outputs(merged(task, second)), _outputs(merged(task, first)), atol=1e-3)


def test_a_head_of_other_labels_begins_anew(flags_for: Callable[[str], list[str]], tmp_path: Path) -> None:
    flags, first = flags_for("text-classification"), tmp_path / "first"
    run_train([*flags, *LORA, "--output_dir", str(first)], StopAfter())
    settings = settings_of([*flags, "--model_name", str(first)])
    model = ModelManager(settings, find_task(settings)).load_model(("가", "나", "다"))
    assert model.classifier.weight.shape[0] == model.config.num_labels == 3
    assert set(model.config.id2label.values()) == {"가", "나", "다"}


def test_a_base_whose_weights_changed_is_told(
    flags_for: Callable[[str], list[str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from safetensors.torch import load_file, save_file

    flags, folder = flags_for("text-classification"), tmp_path / "model"
    base = Path(shutil.copytree(flags[flags.index("--model_name") + 1], tmp_path / "base"))
    run_train([*flags, *LORA, "--model_name", str(base), "--output_dir", str(folder)], StopAfter())
    merged("text-classification", folder)
    weights = load_file(base / "model.safetensors")
    save_file({name: t.bfloat16() for name, t in weights.items()}, base / "model.safetensors", {"format": "pt"})
    merged("text-classification", folder)
    assert "베이스 모델의 가중치가 바뀌었습니다" not in caplog.text  # the same weights in another dtype
    save_file({name: 1.1 * t for name, t in weights.items()}, base / "model.safetensors", {"format": "pt"})
    merged("text-classification", folder)
    assert "베이스 모델의 가중치가 바뀌었습니다" in caplog.text and str(folder) in caplog.text


def settings_of(flags: list[str]) -> Settings:
    from finetuning_app import build_parser, read_settings

    return read_settings(build_parser().parse_args(flags))


def _outputs(model: Any) -> torch.Tensor:
    """Return what a model computes, whatever its head: a question answerer has two rows of logits."""
    ids = torch.arange(10, 20).unsqueeze(0)
    inputs = {"decoder_input_ids": ids + 1} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        found = model(input_ids=ids, **inputs)
    return torch.cat([found.start_logits, found.end_logits]) if "start_logits" in found else found.logits
