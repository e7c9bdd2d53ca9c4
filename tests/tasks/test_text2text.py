"""Text to text: the loss of transformers, targets that end, and scores of what was generated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from finetuning.config.schema import Settings
from finetuning.korean.text_quality import GeneratedText
from finetuning.tasks.generation.decoding import Decoding
from finetuning.tasks.generation.shared import Answer
from finetuning.tasks.registry import find_task

ROWS = {"row": [1, 2], "prompt": ["안녕하세요", "배고파"], "response": ["hello", "I am very hungry"]}


def models() -> dict[str, Any]:
    from transformers import BartConfig, T5Config

    return {
        "t5": T5Config(
            vocab_size=257, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, dropout_rate=0.0,
            decoder_start_token_id=0, eos_token_id=0, pad_token_id=0,
        ),
        "bart": BartConfig(
            vocab_size=257, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=128, dropout=0.0,
            decoder_start_token_id=0, bos_token_id=0, eos_token_id=0, pad_token_id=0, forced_eos_token_id=0,
        ),
    }  # fmt: skip


def task_of(**options: Any) -> Any:
    return find_task(Settings.model_validate({"model": {"task": "Text2Text Generation"}, **options}))


@pytest.fixture
def tokenizer(tiny_causal: Path) -> Any:
    from transformers import AutoTokenizer

    made = AutoTokenizer.from_pretrained(tiny_causal)
    made.pad_token = made.eos_token
    return made


def batch_of(task: Any, tokenizer: Any, rows: dict[str, list[Any]] = ROWS) -> Any:
    columns = {"row": rows["row"], **task.encodes.encode(rows, tokenizer, (), 100)}
    examples = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return task.encodes.collate(examples, tokenizer, None)


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_loss_is_that_of_transformers(tokenizer: Any, name: str) -> None:
    from transformers import AutoModelForSeq2SeqLM

    torch.manual_seed(0)
    model, task = AutoModelForSeq2SeqLM.from_config(models()[name]).eval(), task_of()
    batch = batch_of(task, tokenizer)
    reference = model(**batch.inputs, labels=batch.labels).loss
    torch.testing.assert_close(task.scores.loss_sum(task.scores.forward(model, batch), batch) / batch.items, reference)
    assert batch.items == len("hello") + 1 + len("I am very hungry") + 1


def test_every_target_ends_unless_it_is_cut(tokenizer: Any) -> None:
    whole = task_of().encodes.encode(ROWS, tokenizer, (), 100)
    assert [ids[-1] for ids in whole["label"]] == [tokenizer.eos_token_id] * 2
    assert whole["truncated"] == [False, False]
    cut = task_of(text2text={"max_target_length": 8}).encodes.encode(ROWS, tokenizer, (), 100)
    assert cut["truncated"] == [False, True]
    assert [len(ids) for ids in cut["label"]] == [6, 8]


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_an_overfitted_model_generates_its_training_pairs(tokenizer: Any, name: str) -> None:
    """Training and generating agree on where a target begins and ends."""
    from transformers import AutoModelForSeq2SeqLM

    torch.manual_seed(0)
    model, task = AutoModelForSeq2SeqLM.from_config(models()[name]), task_of()
    batch = batch_of(task, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(150):
        (task.scores.loss_sum(task.scores.forward(model, batch), batch) / batch.items).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    rows = [{"prompt": prompt} for prompt in ROWS["prompt"]]
    assert task.scores.generate(model, rows, tokenizer, 100, Decoding(40)) == [
        GeneratedText(text, ended=True) for text in ROWS["response"]
    ]
    assert not any(text.ended for text in task.scores.generate(model, rows, tokenizer, 100, Decoding(3)))


def test_scores_are_of_the_rows_that_were_generated() -> None:
    task = task_of()
    predictions = [Answer(1.0, 2, generated=GeneratedText("I am very hungry now", ended=True)), Answer(1.0, 2)]
    rows = {"prompt": ["가", "나"], "response": ["I am very hungry now", "unseen"]}
    found = task.scores.metrics(predictions, rows, (), 0.5)
    scores = {"loss": 0.5, "chrf": 100, "bleu": 100, "bleu_char": 100, "rouge_l": 1}
    assert {name: found[name] for name in scores} == pytest.approx(scores)
    assert (found["ended"], found["hangul"]) == (1, 0)
    assert task.scores.metrics([Answer(1.0, 2)] * 2, rows, (), 0.5) == {"loss": 0.5}
