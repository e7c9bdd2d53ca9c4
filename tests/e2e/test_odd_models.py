"""Models with the odd weights and configs of public reports: trained right, or refused by name before a step."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.support.cli import Cli, Run, arguments_for, read_json


def changed(model: Path, folder: Path, **config: Any) -> Path:
    """A copy of a model with other entries in its config.json."""
    shutil.copytree(model, folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**read_json(path), **config}), encoding="utf-8")
    return folder


def rewritten(model: Path, folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]], **config: Any) -> Path:
    """A copy of a model with other tensors in its file."""
    changed(model, folder, **config)
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})
    return folder


def check_refused(run: Run, *said: str) -> None:
    assert run.code == 4, run.err
    assert "Traceback" not in run.err
    for words in said:
        assert words in run.err


def renamed(old: dict[str, Any]) -> dict[str, Any]:
    return {f"module.{key}": value for key, value in old.items()}


def halved(old: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in old.items() if "layer.1." not in key}


ODD_WEIGHTS: dict[str, tuple[Any, ...]] = {
    "prefix": (renamed, {}, "bert.embeddings.LayerNorm.bias", "이름 앞의 module.을 떼거나"),
    "layers": (halved, {}, "bert.encoder.layer.1.", "config.json의 층 수"),
    "type": (dict, {"model_type": "electra", "embedding_size": 32}, "electra.embeddings.", "model_type(electra)"),
    "size": (dict, {"intermediate_size": 48}, "bert.encoder.layer.0.intermediate", "config.json의 층 수와 크기"),
}


@pytest.mark.parametrize("kind", ODD_WEIGHTS)
def test_weights_that_do_not_load_are_an_error_that_names_some(
    cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path, kind: str
) -> None:
    change, config, name, remedy = ODD_WEIGHTS[kind]
    folder = rewritten(tiny_model, tmp_path / "odd", change, **config)
    run = cli(*arguments_for(folder, reviews, tmp_path / "run"))
    check_refused(run, name, "모델 파일에 없거나 크기가 다릅니다", remedy)
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_new_head_is_told_in_one_line(cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path) -> None:
    run = cli(*arguments_for(tiny_model, reviews, tmp_path / "run", "--epochs", "1"))
    assert run.code == 0, run.err
    assert "새로 만들어 처음부터 학습하는 부분: bert.pooler.dense, classifier\n" in run.err


@pytest.mark.parametrize("padding", [3, -1])
def test_predictions_of_a_classifier_on_a_causal_model_do_not_depend_on_the_batch(
    cli: Cli, tiny_causal: Path, reviews: Path, tmp_path: Path, padding: int
) -> None:
    """The config's padding id is that of another token; the tokenizer has no padding token."""
    folder, output_dir = changed(tiny_causal, tmp_path / "odd", pad_token_id=padding), tmp_path / "run"
    trained = cli(*arguments_for(folder, reviews, output_dir, "--epochs", "1", "--task", "text-classification"))
    assert trained.code == 0, trained.err
    assert read_json(output_dir / "config.json")["pad_token_id"] == 0
    path = output_dir / "config.json"  # and a model that was saved with another one
    path.write_text(json.dumps({**read_json(path), "pad_token_id": padding}), encoding="utf-8")
    texts = ["정말 재미있다", "너무 지루하다 " * 8, "짧다"]
    together = cli("predict", "--output_dir", output_dir, stdin="\n".join(texts))
    assert together.code == 0, together.err
    for text, line in zip(texts, together.out.splitlines(), strict=True):
        alone = json.loads(cli("predict", "--output_dir", output_dir, stdin=text).out)
        assert alone["score"] == pytest.approx(json.loads(line)["score"], abs=1e-5)


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
@pytest.mark.parametrize("command", ["train", "plan"])
def test_an_adapter_on_a_tied_layer_is_refused_by_name(
    cli: Cli, tied_causal: Path, tmp_path: Path, target: str, command: str
) -> None:
    data = tmp_path / "train.csv"
    data.write_text("prompt,response\n" + "".join(f"질문 {n},답 {n}\n" for n in range(20)), encoding="utf-8")
    run = cli(
        command, "--task", "text-generation", "--model_name", tied_causal, "--dataset", data,
        "--output_dir", tmp_path / "run", "--set", "model.adapter.method=lora",
        "--set", f"model.adapter.target_modules=[q_proj, {target}]",
    )  # fmt: skip
    check_refused(run, target, "가중치를 공유하는 층", "target_modules에서")


@pytest.fixture(scope="module")
def tied_causal(tiny_causal: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tied") / "model"

    def tied(old: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in old.items() if key != "lm_head.weight"}

    return rewritten(tiny_causal, folder, tied, tie_word_embeddings=True)


def questions(folder: Path) -> Path:
    path = folder / "questions.csv"
    path.write_text("prompt,response\n" + "".join(f"질문 {n},답 {n}\n" for n in range(24)), encoding="utf-8")
    return path


def test_a_generation_config_that_cannot_be_saved_is_mended_before_the_first_step(
    cli: Cli, tiny_causal: Path, tmp_path: Path
) -> None:
    """Vicuna's has a temperature without do_sample."""
    folder, output_dir = changed(tiny_causal, tmp_path / "odd"), tmp_path / "run"
    (folder / "generation_config.json").write_text('{"temperature": 0.9, "top_p": 0.6}', encoding="utf-8")
    flags = ["--task", "text-generation", "--epochs", "1", "--set", "generation.max_new_tokens=2"]
    run = cli(*arguments_for(folder, questions(tmp_path), output_dir, *flags))
    assert run.code == 0, run.err
    assert "do_sample을 true로 고쳐 저장합니다" in run.err
    saved = read_json(output_dir / "generation_config.json")
    assert (saved["do_sample"], saved["temperature"]) == (True, 0.9)


def test_the_saved_tokenizer_is_of_a_class_that_transformers_4_has(
    cli: Cli, tiny_causal: Path, reviews: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    folder, output_dir = changed(tiny_causal, tmp_path / "odd"), tmp_path / "run"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["a", "b"]})
    tokenizer.save_pretrained(folder)
    run = cli(*arguments_for(folder, reviews, output_dir, "--epochs", "1"))
    assert run.code == 0, run.err
    described = read_json(output_dir / "tokenizer_config.json")
    assert described["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not isinstance(described.get("extra_special_tokens"), list)
    again = AutoTokenizer.from_pretrained(output_dir)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert {"a", "b"} <= set(again.all_special_tokens)
