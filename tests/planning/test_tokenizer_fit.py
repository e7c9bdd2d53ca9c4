"""How a tokenizer fits Korean: against tokenizers whose tokens are known by construction, and as plan says it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import AutoTokenizer

from finetuning.config.schema import Settings
from finetuning.planning.tokenizer_fit import Fit, measure
from finetuning.tasks.registry import find_task
from tests.support.cli import Cli
from tests.support.texts import NEGATIVE, POSITIVE

TEXTS = [*POSITIVE, *NEGATIVE] * 4


def fit_of(model: Path, texts: list[str], task: str = "text-classification", length: int = 1000) -> Fit:
    rows: dict[str, Any] = {"row": list(range(1, len(texts) + 1)), "text": texts}
    if task == "text-classification":
        rows["label"] = ["0"] * len(texts)
    found = find_task(Settings.model_validate({"model": {"task": task}, "text_generation": {"format": "text"}}))
    return measure(Dataset.from_dict(rows), found, AutoTokenizer.from_pretrained(model), ["0"], length)


def test_one_token_per_syllable_is_measured_as_one(tiny_model: Path) -> None:
    fit = fit_of(tiny_model, TEXTS)
    letters, words = sum(len(text.replace(" ", "")) for text in TEXTS), sum(len(text.split()) for text in TEXTS)
    assert (fit.per_syllable, fit.unknown, fit.fragments, fit.cut, fit.lost) == (1, 0, 0, 0, 0)
    assert fit.per_word == pytest.approx(letters / words)
    assert fit.warning("AutoModelForSequenceClassification") == ""


def test_unknown_words_are_counted(tiny_model: Path) -> None:
    fit = fit_of(tiny_model, ["뷁뷁 좋다", "좋다 뷁"] * 100)
    assert fit.unknown == pytest.approx(2 / 6)
    assert "33%가 알 수 없는 토큰" in fit.warning("AutoModelForSequenceClassification")


def test_byte_tokens_count_as_fragments(tiny_causal: Path) -> None:
    fit = fit_of(tiny_causal, TEXTS, "text-generation")
    spaces = sum(text.count(" ") for text in TEXTS)
    tokens = sum(len(text.encode()) for text in TEXTS)
    assert fit.per_syllable == 3
    assert fit.fragments == pytest.approx((tokens - spaces) / tokens)
    assert "3.0 토큰으로 나누므로" in fit.warning("AutoModelForCausalLM")
    assert "언어 모델" in fit.warning("AutoModelForCausalLM")


def test_english_text_gives_no_warning(tiny_causal: Path) -> None:
    assert fit_of(tiny_causal, ["a good film"] * 50, "text-generation").warning("AutoModelForCausalLM") == ""


def test_cut_rows_and_lost_text_are_measured(tiny_model: Path) -> None:
    fit = fit_of(tiny_model, ["정말 재미있다", "정말" * 12], length=10)  # [CLS] and [SEP] are two of a row's tokens
    assert fit.cut == 0.5
    assert fit.lost == pytest.approx(1 - (8 + 10) / (8 + 26))


def test_long_texts_in_pieces_lose_nothing(tiny_causal: Path) -> None:
    fit = fit_of(tiny_causal, ["정말 재미있다" * 20], "text-generation", length=32)
    assert (fit.cut, fit.lost) == (0, 0)


def test_plan_shows_tokenizers_side_by_side(
    cli: Cli, tiny_model: Path, tiny_causal: Path, reviews: Path, tmp_path: Path
) -> None:
    run = cli(
        "plan", "--model_name", tiny_model, "--dataset", reviews, "--max_length", 64, "--compare", tiny_causal,
        "--set", f"data.dataset_cache_dir={tmp_path / 'cache'}",
    )  # fmt: skip
    assert run.code == 0, run.err
    table = run.out[run.out.index("tokenizer 비교") :].splitlines()
    assert table[1].split(" | ")[2] == "토큰/음절"
    assert [line.split(" | ")[2] for line in table[2:4]] == ["1.00", "3.00"]
    assert str(tiny_causal) in run.err and "한국어에 맞지 않습니다" in run.err


def test_letters_that_a_tokenizer_does_not_know_are_told_by_kind(
    cli: Cli, tiny_model: Path, tiny_causal: Path, tmp_path: Path
) -> None:
    odd = [
        "大韓民國은 재미있다",
        "나랏말ᄊᆞ미",
        "마이 뎌랑 지루하다",
        "최고의 영화다😀",
        "감동👨‍👩‍👧이다 😀",
        "\ue0bc 좋다",
    ]
    rows = [f"{text} {number},{number % 2}" for number in range(4) for text in odd]
    (tmp_path / "odd.csv").write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    done = cli("plan", "--model_name", tiny_model, "--dataset", tmp_path / "odd.csv", "--set",
               f"data.dataset_cache_dir={tmp_path / 'cache'}")  # fmt: skip
    assert done.code == 0, done.err
    (told,) = [line for line in done.err.splitlines() if "tokenizer가 모르는 글자" in line]
    for kind in ("한자 4가지", "옛한글 2가지", "한글 ", "이모지와 기호 4가지", "U+E0BC"):
        assert kind in told
    assert "😀" in told and "\u200d" not in told
    assert fit_of(tiny_causal, odd, "text-generation").unknown_line() == ""  # bytes know every letter
