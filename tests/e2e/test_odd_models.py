"""Models with the odd weights and configs of public reports: trained right, or refused by name before a step."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.support.architectures import CAUSAL, ENCODERS, SEQ2SEQ, made, multimodal
from tests.support.cli import Cli, Run, arguments_for, check_evaluate_repeats_training, read_json


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


NESTED_SAMPLE = {("opt", "none"), ("gemma3", "lora"), ("gemma4", "none"), ("llama4", "freeze")}
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
    path = folder / "questions"
    path.mkdir()
    for name, numbers in (("train", range(24)), ("test", range(24, 30))):
        rows = "".join(f"질문 {n},답 {n}\n" for n in numbers)
        (path / f"{name}.csv").write_text(f"prompt,response\n{rows}", encoding="utf-8")
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


@pytest.mark.parametrize("method", ["none", "lora"])
def test_an_embedding_grows_to_the_tokenizer(cli: Cli, tiny_causal: Path, tmp_path: Path, method: str) -> None:
    from transformers import AutoTokenizer

    folder, output_dir = changed(tiny_causal, tmp_path / "odd"), tmp_path / "run"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["질문", "답"])
    tokenizer.save_pretrained(folder)
    flags = [
        "--task", "text-generation", "--epochs", "1", "--set", "generation.max_new_tokens=2",
        "--set", f"model.adapter.method={method}",
    ]  # fmt: skip
    arguments = arguments_for(folder, questions(tmp_path), output_dir, *flags)
    for command in ("plan", "train"):
        run = cli(command, *arguments)
        assert run.code == 0, run.err
        assert run.err.count("임베딩을 늘립니다") == 1
    assert read_json(output_dir / "config.json")["vocab_size"] == len(tokenizer)
    check_evaluate_repeats_training(cli, output_dir)
    if method == "lora":
        exported = cli("export", "--output_dir", output_dir, "--output", tmp_path / "merged")
        assert exported.code == 0, exported.err
        assert len(load_file(tmp_path / "merged" / "model.safetensors")["model.embed_tokens.weight"]) == len(tokenizer)


def test_a_padding_token_beyond_the_embedding_makes_nothing_more_trained(
    cli: Cli, tiny_causal: Path, tmp_path: Path
) -> None:
    """As of a Llama whose tokenizer was given a [PAD]: an adapter stays small, and loads as it was trained."""
    from transformers import AutoTokenizer

    folder, output_dir = changed(tiny_causal, tmp_path / "odd"), tmp_path / "run"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    flags = [
        "--task", "text-generation", "--epochs", "1", "--set", "generation.max_new_tokens=2",
        "--set", "model.adapter.method=lora",
    ]  # fmt: skip
    run = cli(*arguments_for(folder, questions(tmp_path), output_dir, *flags))
    assert run.code == 0, run.err
    assert all("lora_" in name for name in load_file(output_dir / "adapter_model.safetensors"))
    check_evaluate_repeats_training(cli, output_dir)


def test_segments_that_the_model_does_not_have_are_left_out(
    cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path
) -> None:
    """KoBERT's tokenizer is made from XLNet's, which gives [CLS] the segment 2."""
    folder = changed(tiny_model, tmp_path / "odd")
    path = folder / "tokenizer.json"
    described = read_json(path)
    for kind in ("single", "pair"):
        described["post_processor"][kind][-1]["SpecialToken"]["type_id"] = 2
    path.write_text(json.dumps(described), encoding="utf-8")
    for command in ("plan", "train"):
        run = cli(command, *arguments_for(folder, reviews, tmp_path / "run", "--epochs", "1"))
        assert run.code == 0, run.err
        assert "type_vocab_size(2)를 넘어 쓰지 않습니다" in run.err


def test_a_classifier_on_bart_reads_the_end_that_its_tokenizer_does_not_append(
    cli: Cli, tiny_causal: Path, reviews: Path, tmp_path: Path
) -> None:
    """As KoBART's does not."""
    import torch
    from transformers import AutoTokenizer, BartConfig, BartForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(tiny_causal)
    folder, output_dir = tmp_path / "bart", tmp_path / "run"
    torch.manual_seed(0)
    sizes = {f"{part}_{name}": 2 for part in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    config = BartConfig(
        vocab_size=len(tokenizer) + 1, d_model=32, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=128,
        bos_token_id=0, eos_token_id=0, pad_token_id=len(tokenizer), decoder_start_token_id=0, forced_eos_token_id=0,
        **sizes,
    )  # fmt: skip
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    BartForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    run = cli(*arguments_for(folder, reviews, output_dir, "--epochs", "1"))
    assert run.code == 0, run.err
    assert AutoTokenizer.from_pretrained(output_dir)("좋다")["input_ids"][-1] == 0


def test_a_tokenizer_without_padding_and_end_is_refused(
    cli: Cli, tiny_causal: Path, reviews: Path, tmp_path: Path
) -> None:
    folder = changed(tiny_causal, tmp_path / "odd", eos_token_id=None)
    path = folder / "tokenizer_config.json"
    described = {name: value for name, value in read_json(path).items() if not name.endswith("_token")}
    path.write_text(json.dumps(described), encoding="utf-8")
    for command in ("plan", "train"):
        run = cli(command, *arguments_for(folder, reviews, tmp_path / "run"))
        check_refused(run, "pad 토큰도 끝 토큰(eos)도 없습니다")


def test_a_model_that_pads_on_the_left_is_refused_by_name(
    cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path
) -> None:
    folder = changed(tiny_model, tmp_path / "odd")
    (folder / "config.json").write_text(json.dumps({"model_type": "xlnet"}), encoding="utf-8")
    for command in ("plan", "train"):
        check_refused(
            cli(command, *arguments_for(folder, reviews, tmp_path / "run")), "XLNet은 왼쪽에 패딩을 넣는 모델"
        )


def test_attention_that_depends_on_the_batch_is_replaced(
    cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path
) -> None:
    """BigBird's sparse attention is given up for good at the first batch of short texts."""
    import torch
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    tokenizer, folder, output_dir = AutoTokenizer.from_pretrained(tiny_model), tmp_path / "odd", tmp_path / "run"
    torch.manual_seed(0)
    config = made(ENCODERS["big_bird"], vocab_size=len(tokenizer))
    AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for command in ("plan", "train"):
        run = cli(command, *arguments_for(folder, reviews, output_dir, "--epochs", "1"))
        assert run.code == 0, run.err
        assert run.err.count("original_full로 바꾸어 쓰고 저장합니다") == 1
    assert read_json(output_dir / "config.json")["attention_type"] == "original_full"
    check_evaluate_repeats_training(cli, output_dir)


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        pytest.param(kind, method, marks=[] if (kind, method) in NESTED_SAMPLE else pytest.mark.soak)
        for kind in ("opt", "gemma3", "gemma4", "llama4")
        for method in ("none", "lora", "freeze")
    ],
)
def test_models_with_nested_settings_or_a_deeper_decoder_are_trained(
    cli: Cli, tiny_causal: Path, tmp_path: Path, kind: str, method: str
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, folder, output_dir = AutoTokenizer.from_pretrained(tiny_causal), tmp_path / "odd", tmp_path / "run"
    torch.manual_seed(0)
    ids = {"vocab_size": len(tokenizer), "eos_token_id": 0, "bos_token_id": None, "pad_token_id": None}
    config = made(CAUSAL[kind], **ids) if kind in CAUSAL else multimodal(kind, **ids)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    flags = [
        "--task", "text-generation", "--epochs", "1", "--set", "generation.max_new_tokens=2",
        "--set", f"model.adapter.method={method}", "--set", "model.adapter.layers=1",
    ]  # fmt: skip
    arguments = arguments_for(folder, questions(tmp_path), output_dir, *flags)
    for command in ("plan", "train"):
        run = cli(command, *arguments)
        assert run.code == 0, run.err
    check_evaluate_repeats_training(cli, output_dir)
    if method == "lora":
        names = set(load_file(output_dir / "adapter_model.safetensors"))
        assert names and not any("vision" in name for name in names)
        exported = cli("export", "--output_dir", output_dir, "--output", tmp_path / "merged")
        assert exported.code == 0, exported.err


def test_an_end_token_in_a_text_is_no_end_for_a_classifier_on_t5(cli: Cli, tiny_causal: Path, tmp_path: Path) -> None:
    """transformers refuses rows of different numbers of them; a T5 without a start token starts with padding."""
    import torch
    from transformers import AutoTokenizer, T5ForConditionalGeneration

    tokenizer, folder, output_dir = AutoTokenizer.from_pretrained(tiny_causal), tmp_path / "t5", tmp_path / "run"
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    torch.manual_seed(0)
    ids = {"vocab_size": len(tokenizer), "eos_token_id": 0, "pad_token_id": len(tokenizer) - 1, "bos_token_id": None}
    config = made(SEQ2SEQ["t5"], **ids, decoder_start_token_id=None)
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    data = tmp_path / "data"
    data.mkdir()
    for name, numbers in (("train", range(40)), ("test", range(40, 46))):
        rows = "".join(f"좋다{'</s>' * (n % 3)} {n},{n % 2}\n" for n in numbers)
        (data / f"{name}.csv").write_text(f"text,label\n{rows}", encoding="utf-8")
    for command in ("plan", "train"):
        run = cli(command, *arguments_for(folder, data, output_dir, "--epochs", "1"))
        assert run.code == 0, run.err
    check_evaluate_repeats_training(cli, output_dir)
    predicted = cli("predict", "--output_dir", output_dir, stdin="좋다</s>\n나쁘다")
    assert predicted.code == 0, predicted.err


@pytest.mark.parametrize(
    "kind",
    [("fnet", {"type_vocab_size": 2}), ("convbert", {"embedding_size": 16, "head_ratio": 2, "conv_kernel_size": 3})],
    ids=["fnet", "convbert"],
)
def test_a_model_that_sees_padding_is_named_before_the_first_step(
    cli: Cli, tiny_model: Path, reviews: Path, tmp_path: Path, kind: tuple[str, dict[str, Any]]
) -> None:
    import torch
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    tokenizer, folder = AutoTokenizer.from_pretrained(tiny_model), tmp_path / "odd"
    torch.manual_seed(0)
    AutoModelForMaskedLM.from_config(made(kind, vocab_size=len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    run = cli(*arguments_for(folder, reviews, tmp_path / "run", "--epochs", "1"))
    assert run.code == 0, run.err
    assert f"{kind[0]} 모델은 패딩에 따라 계산이 달라져" in run.err


def test_an_architecture_without_a_head_for_the_task_is_named(
    cli: Cli, tiny_causal: Path, reviews: Path, tmp_path: Path
) -> None:
    folder = changed(tiny_causal, tmp_path / "odd", model_type="xglm")
    run = cli("plan", *arguments_for(folder, reviews, tmp_path / "run"))
    check_refused(run, "transformers에 XGLM 구조로 text-classification 태스크를 하는 모델이 없습니다")
