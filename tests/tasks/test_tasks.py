"""Tasks by name, and each task's loss and labels against references."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from exceptions import DataError, ModelError, SettingsError
from finetuning.config.schema import Settings
from finetuning.tasks.registry import find_task, task_classes
from finetuning.tasks.text_encoding import encode_text, text_columns
from finetuning.types import RandomKey
from tests.support.rows import TEXTS, examples_of


def settings_for(task: str, **sections: dict[str, Any]) -> Settings:
    return Settings.model_validate({"model": {"task": task}, **sections})


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.mark.parametrize(
    "spelling", ["text-classification", "Text Classification", "TEXT_CLASSIFICATION", "텍스트 분류", "감성분석"]
)
def test_a_task_is_found_in_any_spelling(spelling: str) -> None:
    assert find_task(settings_for(spelling)).name == "text-classification"


def test_an_unknown_task_is_refused_with_the_nearest() -> None:
    with pytest.raises(SettingsError) as error:
        find_task(settings_for("text-clasification"))
    assert "text-classification" in error.value.remedy


def test_no_two_tasks_share_a_spelling() -> None:
    spellings = [name for cls in task_classes().values() for name in (cls.name, *cls.aliases)]
    assert len(spellings) == len(set(spellings))


def test_labels_that_are_numbers_keep_their_order() -> None:
    task = find_task(settings_for("text-classification"))
    assert task.reads.label_names({"10": 30, "2": 30, "0": 30}) == ("0", "2", "10")
    assert task.reads.label_names({"부정": 30, "긍정": 30}) == ("긍정", "부정")


@pytest.mark.parametrize(
    ("tokenizer", "said"),
    [
        (SimpleNamespace(mask_token_id=None, is_fast=True), "mask 토큰이 없어"),
        (SimpleNamespace(mask_token_id=4, is_fast=False), "fast tokenizer"),
    ],
)
def test_fill_mask_refuses_a_tokenizer_before_any_text_is_read(tokenizer: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        find_task(settings_for("fill-mask")).encodes.fit_tokenizer(tokenizer)


@pytest.mark.parametrize("counts", [{"긍정": 5}, {}, {f"문장 {n}": 1 for n in range(50)}])
def test_labels_that_cannot_be_learned_are_refused(counts: dict[str, int]) -> None:
    with pytest.raises(DataError):
        find_task(settings_for("text-classification")).reads.label_names(counts)


def test_classification_loss_is_that_of_transformers(tokenizer: Any, tiny_model: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    task = find_task(settings_for("text-classification"))
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=2).eval()
    batch = task.encodes.collate(
        examples_of(task, tokenizer, {**TEXTS, "label": ["긍정", "부정", "긍정"]}, ["긍정", "부정"]), tokenizer, None
    )
    reference = model(**batch.inputs, labels=torch.tensor([0, 1, 0])).loss
    assert batch.items == 3
    torch.testing.assert_close(task.scores.loss_sum(task.scores.forward(model, batch), batch) / batch.items, reference)


def test_mask_loss_is_that_of_transformers_over_all_positions(tokenizer: Any, tiny_model: Path) -> None:
    from transformers import AutoModelForMaskedLM

    task = find_task(settings_for("fill-mask"))
    model = AutoModelForMaskedLM.from_pretrained(tiny_model).eval()
    batch = task.encodes.collate(examples_of(task, tokenizer, TEXTS, []), tokenizer, RandomKey(0, 0))
    reference = model(**batch.inputs, labels=batch.labels).loss
    torch.testing.assert_close(task.scores.loss_sum(task.scores.forward(model, batch), batch) / batch.items, reference)


def test_masks_do_not_depend_on_how_a_window_is_cut(tokenizer: Any) -> None:
    task = find_task(settings_for("fill-mask"))
    examples = examples_of(task, tokenizer, TEXTS, [])
    together = task.encodes.collate(examples, tokenizer, RandomKey(7, 3))
    for position, example in enumerate(examples):
        alone = task.encodes.collate([example], tokenizer, RandomKey(7, 3))
        length = len(example["input_ids"])
        assert torch.equal(together.inputs["input_ids"][position, :length], alone.inputs["input_ids"][0])
        assert torch.equal(together.labels[position, :length], alone.labels[0])


def test_masking_takes_whole_words_at_the_stated_rates(tokenizer: Any) -> None:
    task = find_task(settings_for("fill-mask"))
    rows = {
        "row": list(range(400)),
        "text": ["감동적이고 좋다 정말 재미있다 또 보고 싶다 최고의 영화다 연기가 훌륭하다"] * 400,
    }
    examples = examples_of(task, tokenizer, rows, [])
    batch = task.encodes.collate(examples, tokenizer, RandomKey(0, 0))
    word = np.array([example["word"] for example in examples])
    chosen = (batch.labels != -100).numpy()
    for row, words in zip(chosen, word, strict=True):
        for unit in set(words[words >= 0].tolist()):
            assert len(set(row[words == unit].tolist())) == 1
        assert not row[words < 0].any()
    assert abs(chosen[word >= 0].mean() - 0.15) < 0.03
    masked = (batch.inputs["input_ids"].numpy() == tokenizer.mask_token_id)[chosen].mean()
    assert abs(masked - 0.8) < 0.03


def test_every_text_has_a_masked_word(tokenizer: Any) -> None:
    task = find_task(settings_for("fill-mask", fill_mask={"mask_probability": 0.01}))
    batch = task.encodes.collate(examples_of(task, tokenizer, TEXTS, []), tokenizer, RandomKey(0, 0))
    assert (batch.labels != -100).any(1).all()


def test_a_cut_text_is_reported(tokenizer: Any) -> None:
    task = find_task(settings_for("fill-mask"))
    assert task.encodes.encode(TEXTS, tokenizer, [], 8)["truncated"] == [False, True, True]


@pytest.mark.parametrize("pairs", [None, TEXTS["text"][::-1]])
@pytest.mark.parametrize("max_length", [6, 16, 64])
def test_fast_encoding_equals_that_of_the_tokenizer(tokenizer: Any, pairs: list[str] | None, max_length: int) -> None:
    whole = tokenizer(TEXTS["text"], pairs, truncation=True, max_length=max_length)
    assert encode_text(tokenizer, TEXTS["text"], pairs, max_length) == text_columns(whole, max_length)


def test_text_preparation_of_a_tokenizer_class_is_kept(tiny_model: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    class Shouting(PreTrainedTokenizerFast):
        def _encode_plus(self, text: Any, *args: Any, **options: Any) -> Any:
            return super()._encode_plus([f"{one}!!" for one in text], *args, **options)

    own, plain = Shouting.from_pretrained(tiny_model), PreTrainedTokenizerFast.from_pretrained(tiny_model)
    shouted = [f"{text}!!" for text in TEXTS["text"]]
    assert encode_text(own, TEXTS["text"], None, 64) == encode_text(plain, shouted, None, 64)
