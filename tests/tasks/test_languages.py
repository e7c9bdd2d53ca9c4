"""Multilingual text-to-text models: targets begin in training and in generation as transformers has them begin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from exceptions import ModelError, SettingsError
from finetuning.config.schema import Settings
from finetuning.tasks.generation.decoding import Decoding
from finetuning.tasks.registry import find_task
from tests.support.cli import Cli, arguments_for, check_evaluate_repeats_training, read_json
from tests.support.languages import config_for, save_model, tokenizer_of

ROWS = {"row": [1, 2, 3], "prompt": ["안녕하세요", "가나다라", "고맙습니다"], "response": ["hi", "abcdefg", "thank AI"]}
CODES = {"mbart": ("en_XX", "ko_KR"), "mbart50": ("en_XX", "ko_KR"), "nllb": ("eng_Latn", "kor_Hang")}


def task_of(**options: Any) -> Any:
    return find_task(Settings.model_validate({"model": {"task": "text2text-generation"}, "text2text": options}))


def batch_of(task: Any, tokenizer: Any) -> Any:
    columns = {"row": ROWS["row"], **task.encodes.encode(ROWS, tokenizer, (), 100)}
    examples = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return task.encodes.collate(examples, tokenizer, None)


@pytest.mark.parametrize("kind", CODES)
def test_the_loss_is_that_of_transformers_on_its_own_inputs(kind: str) -> None:
    from transformers import AutoModelForSeq2SeqLM

    english, korean = CODES[kind]
    tokenizer, task = tokenizer_of(kind), task_of(source_language=korean, target_language=english)
    torch.manual_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(config_for(kind, tokenizer)).eval()
    task.encodes.fit_tokenizer(tokenizer)
    task.scores.fit_model(model, tokenizer)
    batch = batch_of(task, tokenizer)
    plain = tokenizer_of(kind, src_lang=korean, tgt_lang=english)
    inputs = plain(ROWS["prompt"], text_target=ROWS["response"], padding=True, return_tensors="pt")
    labels = inputs["labels"].masked_fill(inputs["labels"] == plain.pad_token_id, -100)
    reference = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], labels=labels).loss
    found = task.scores.loss_sum(task.scores.forward(model, batch), batch) / batch.items
    torch.testing.assert_close(found, reference)
    assert batch.items == int((labels != -100).sum())


@pytest.mark.parametrize("kind", CODES)
def test_an_overfitted_model_generates_its_training_pairs(kind: str) -> None:
    from transformers import AutoModelForSeq2SeqLM

    english, korean = CODES[kind]
    tokenizer, task = tokenizer_of(kind), task_of(source_language=korean, target_language=english)
    torch.manual_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(config_for(kind, tokenizer, max_position_embeddings=256))
    task.encodes.fit_tokenizer(tokenizer)
    task.scores.fit_model(model, tokenizer)
    batch = batch_of(task, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(200):
        (task.scores.training_loss(model, batch) / batch.items).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    made = task.scores.generate(model, [{"prompt": prompt} for prompt in ROWS["prompt"]], tokenizer, 100, Decoding(128))
    assert [(text.text, text.ended) for text in made] == [(text, True) for text in ROWS["response"]]


def test_languages_are_checked_and_kept_with_the_tokenizer(tmp_path: Path, tiny_causal: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = tokenizer_of("mbart")
    task_of(source_language="ko_KR").encodes.fit_tokenizer(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert (again.src_lang, again.tgt_lang) == ("ko_KR", "ko_KR")
    with pytest.raises(SettingsError, match="없는 언어 코드입니다: ko"):
        task_of(target_language="ko").encodes.fit_tokenizer(tokenizer)
    with pytest.raises(SettingsError, match="언어 코드가 없습니다"):
        task_of(target_language="ko_KR").encodes.fit_tokenizer(AutoTokenizer.from_pretrained(tiny_causal))


def test_an_mbart_whose_start_nobody_knows_is_refused(tiny_causal: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_causal)
    model = AutoModelForSeq2SeqLM.from_config(config_for("mbart", tokenizer))
    with pytest.raises(ModelError, match="언어 코드로 시작하는데"):
        task_of().scores.fit_model(model, tokenizer)


@pytest.mark.parametrize("kind", CODES)
def test_a_multilingual_model_from_training_to_prediction(cli: Cli, tmp_path: Path, kind: str) -> None:
    folder, output_dir, (english, korean) = save_model(kind, tmp_path / "model"), tmp_path / "run", CODES[kind]
    data = tmp_path / "pairs"
    data.mkdir()
    for name, numbers in (("train", range(40)), ("test", range(40, 44))):
        rows = "".join(f"질문 {n},답 {n}\n" for n in numbers)
        (data / f"{name}.csv").write_text(f"source,target\n{rows}", encoding="utf-8")
    flags = ["--task", "text2text-generation", "--epochs", "1", "--set", "generation.max_new_tokens=4"]
    planned = cli("plan", *arguments_for(folder, data, output_dir, *flags))
    assert planned.code == 0, planned.err
    assert f"입력 언어는 {english}, 출력 언어는 {english}" in planned.err and korean in planned.err
    flags += ["--set", f"text2text.source_language={korean}", "--set", f"text2text.target_language={korean}"]
    run = cli(*arguments_for(folder, data, output_dir, *flags))
    assert run.code == 0, run.err
    assert "언어가 정해져 있지 않아" not in run.err
    check_evaluate_repeats_training(cli, output_dir)
    predicted = cli("predict", "--output_dir", output_dir, stdin="질문 3")
    assert predicted.code == 0, predicted.err
    token = tokenizer_of(kind).convert_tokens_to_ids(korean)
    start = "decoder_start_token_id" if kind == "mbart" else "forced_bos_token_id"
    assert read_json(output_dir / "generation_config.json")[start] == token
