"""The scripts that made the bundled encoder: which texts they take, what packed rows give, and a short run."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM

from tests.support.paths import ROOT

TEXTS = [
    "배우들 연기가 정말 훌륭하네요",
    "또 보고 싶다",
    "음악이 좋아서 끝까지 앉아 있었습니다!",
    "최고",
    "두 시간이 아까웠다",
]


@pytest.fixture
def script(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """A script of examples/ as a module."""
    name = request.param
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[name]


def model_and_rows(script: ModuleType, texts: list[str]) -> tuple[BertForMaskedLM, Any, Any]:
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "examples" / "encoder")
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.2,
    )).eval()  # fmt: skip
    return model, tokenizer, script.rows_of(tokenizer(texts)["input_ids"], tokenizer, torch.device("cpu"))


@pytest.mark.parametrize("script", ["pretrain_encoder"], indirect=True)
def test_a_text_in_a_row_with_others_has_the_logits_that_it_has_alone(script: ModuleType) -> None:
    model, tokenizer, rows = model_and_rows(script, TEXTS * 7)
    weights = dict(model.named_parameters())
    with torch.no_grad():
        found = script.logits_of(script.hidden_states(model, weights, rows.ids, rows), weights)
        for row, number in [(0, 0), (0, 3), (len(rows) - 1, 1)]:
            places = rows.texts[row] == number
            alone = model(input_ids=rows.ids[row][places][None]).logits[0]
            torch.testing.assert_close(found[row][places], alone, rtol=1e-4, atol=1e-4)
    kept = [rows.ids[row][rows.texts[row] == n].tolist() for row in range(len(rows)) for n in rows.texts[row].unique()]
    packed = sorted(ids for ids in kept if ids[0] != tokenizer.pad_token_id)
    assert packed == sorted(tokenizer(TEXTS * 7)["input_ids"])


@pytest.mark.parametrize("script", ["pretrain_encoder"], indirect=True)
def test_words_are_masked_whole_and_special_tokens_never(script: ModuleType) -> None:
    _, tokenizer, rows = model_and_rows(script, TEXTS * 200)
    torch.manual_seed(0)
    ids, chosen = script.masked(rows, 0.2, tokenizer.mask_token_id, len(tokenizer))
    assert not (chosen & rows.is_special).any() and torch.equal(ids[~chosen], rows.ids[~chosen])
    assert abs(float(chosen.sum() / (~rows.is_special).sum()) - 0.2) < 0.03
    assert abs(float((ids[chosen] == tokenizer.mask_token_id).float().mean()) - 0.8) < 0.05
    for row in range(len(rows)):
        words = rows.words[row]
        assert torch.equal(torch.zeros(128).index_add_(0, words, chosen[row].float())[words] > 0, chosen[row])


@pytest.mark.parametrize("script", ["pretrain_encoder"], indirect=True)
def test_muon_makes_a_gradient_nearly_orthogonal(script: ModuleType) -> None:
    torch.manual_seed(0)
    for shape in ((3, 16, 16), (2, 24, 8), (2, 8, 24)):
        sizes = torch.linalg.svdvals(script.orthogonal(torch.randn(shape)))
        assert float(sizes.min()) > 0.5 and float(sizes.max()) < 1.3


@pytest.mark.parametrize("script", ["make_encoder"], indirect=True)
def test_reviews_of_the_test_file_are_left_out(script: ModuleType, tmp_path: Path) -> None:
    write_reviews(tmp_path, test=[("7", TEXTS[0]), ("99", TEXTS[2])])
    assert sorted(script.texts_of(tmp_path)) == sorted([TEXTS[1], TEXTS[4], "이 글은 번호가 7과 다르다"])


def write_reviews(nsmc: Path, test: list[tuple[str, str]]) -> None:
    """Write a folder in the shape of NSMC's repository."""
    reviews = [("1", TEXTS[1]), ("2", TEXTS[2]), ("3", f" {TEXTS[4]}  "), ("4", TEXTS[4]), ("5", TEXTS[3]),
               ("7", "고쳐 쓴 글이다"), ("8", "이 글은 번호가 7과 다르다")]  # fmt: skip
    (nsmc / "raw").mkdir()
    for place in range(2):
        part = [{"review_id": number, "review": text, "rating": "1"} for number, text in reviews[place::2]]
        (nsmc / "raw" / f"{place}.json").write_text(json.dumps(part), encoding="utf-8")
    lines = ["id\tdocument\tlabel", *(f"{number}\t{text}\t0" for number, text in test)]
    (nsmc / "ratings_test.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize("script", ["pretrain_encoder"], indirect=True)
def test_training_lowers_the_loss(script: ModuleType) -> None:
    model, tokenizer, rows = model_and_rows(script, TEXTS * 40)
    before = script.measure(model, rows, tokenizer.mask_token_id)
    torch.manual_seed(0)
    script.train(model, rows, script.Plan(60, rows=4, warmup=5), tokenizer.mask_token_id, lambda *_: None)
    after = script.measure(model, rows, tokenizer.mask_token_id)
    assert after[0] < 0.7 * before[0] and after[1] > before[1]


@pytest.mark.parametrize("script", ["pretrain_encoder"], indirect=True)
def test_the_command_saves_a_model_that_loads(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer, _ = model_and_rows(script, TEXTS)
    blank, texts, trained = tmp_path / "blank", tmp_path / "texts.txt", tmp_path / "trained"
    model.save_pretrained(blank)
    tokenizer.save_pretrained(blank)
    texts.write_text("\n".join(TEXTS * 40) + "\n", encoding="utf-8")
    words = ["pretrain_encoder", str(blank), str(texts), str(trained), "--steps", "2", "--rows", "2"]
    monkeypatch.setattr(sys, "argv", words)
    script.main()
    loaded = AutoModelForMaskedLM.from_pretrained(trained)
    assert loaded.dtype == torch.float16 and len(AutoTokenizer.from_pretrained(trained)) == len(tokenizer)
    assert not torch.equal(loaded.bert.embeddings.word_embeddings.weight, model.bert.embeddings.word_embeddings.weight)
