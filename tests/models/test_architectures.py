"""Architectures that Korean models come in: the loss of a window is that of transformers on padded rows."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch

from finetuning.config.schema import Settings
from finetuning.ops.dense_attention import without_padding
from finetuning.tasks.registry import find_task
from finetuning.windows.layouts import choose_layout
from tests.support.architectures import CAUSAL, ENCODERS, SEQ2SEQ, made, multimodal
from tests.support.causal import PadToken

LENGTHS = (40, 3, 17, 29, 8)  # some longer than the attention windows


def task_of(name: str) -> Any:
    return find_task(Settings.model_validate({"model": {"task": name}}))


def padded(rows: list[list[int]], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask."""
    ids = torch.full((len(rows), max(map(len, rows))), padding)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)], mask[number, : len(row)] = torch.tensor(row), 1
    return ids, mask


def gradient_of(model: Any) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def check_loss(model: Any, task: Any, examples: list[dict[str, Any]], reference: Any) -> None:
    """Compare loss and gradient of a whole window in its layout with a reference's."""
    model.train()
    expected = reference()
    expected.backward()
    wanted = gradient_of(model)
    model.zero_grad()
    task.scores.fit_model(model, PadToken())
    layout = choose_layout(task, model, 64)
    total = 0.0
    lengths = np.array([len(example["input_ids"]) for example in examples])
    batches = [
        layout.collate(task, [[examples[i] for i in row] for row in cut], cast(Any, PadToken()), None)
        for cut in layout.cut(np.arange(len(examples)), lengths, 64)
    ]
    for batch in batches:
        with without_padding(model, batch.dense):
            loss = task.scores.training_loss(model, batch) / sum(one.items for one in batches)
            loss.backward()
        total += float(loss.detach())
    assert len(batches) > 1
    assert total == pytest.approx(float(expected.detach()), rel=1e-4), type(layout).__name__
    found = gradient_of(model)
    assert float((found - wanted).norm() / wanted.norm()) < 1e-4, type(layout).__name__


def check_causal(model: Any) -> None:
    random = np.random.default_rng(0)
    rows = [random.integers(8, 97, length).tolist() for length in LENGTHS]
    ids, mask = padded(rows, 0)

    def reference() -> Any:
        return model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100), use_cache=False).loss

    examples = [{"input_ids": row, "trained": [True] * len(row)} for row in rows]
    task = task_of("text-generation")
    task.scores.fit_model = lambda model, tokenizer: super(type(task.scores), task.scores).fit_model(model, tokenizer)
    check_loss(model, task, examples, reference)


@pytest.mark.parametrize("name", CAUSAL)
def test_causal_models_have_the_loss_of_transformers(name: str) -> None:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    check_causal(AutoModelForCausalLM.from_config(made(CAUSAL[name])))


@pytest.mark.parametrize("name", ["gemma3", "gemma4", "llama4"])
def test_multimodal_models_have_the_loss_of_transformers(name: str) -> None:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    check_causal(AutoModelForCausalLM.from_config(multimodal(name)))


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_have_the_loss_of_transformers(name: str) -> None:
    from transformers import AutoModelForSequenceClassification

    from finetuning.models.agreement import steady_attention

    torch.manual_seed(0)
    config = made(ENCODERS[name])
    config.update(steady_attention(config))
    model = AutoModelForSequenceClassification.from_config(config)
    random = np.random.default_rng(0)
    rows = [random.integers(8, 97, length).tolist() for length in LENGTHS]
    labels = random.integers(0, 2, len(rows)).tolist()
    ids, mask = padded(rows, config.pad_token_id)

    def reference() -> Any:
        return model(input_ids=ids, attention_mask=mask, labels=torch.tensor(labels)).loss

    examples = [{"input_ids": row, "label": label} for row, label in zip(rows, labels, strict=True)]
    check_loss(model, task_of("text-classification"), examples, reference)


@pytest.mark.parametrize("name", SEQ2SEQ)
def test_text_to_text_models_have_the_loss_of_transformers(name: str) -> None:
    from transformers import AutoModelForSeq2SeqLM

    torch.manual_seed(0)
    config = made(SEQ2SEQ[name], pad_token_id=0)
    model, task = AutoModelForSeq2SeqLM.from_config(config), task_of("text2text-generation")
    task.scores.fit_model = lambda model, tokenizer: super(type(task.scores), task.scores).fit_model(model, tokenizer)
    if name == "mbart":
        config.decoder_start_token_id = 2  # with which every target ends
    random = np.random.default_rng(0)
    rows = [random.integers(8, 97, length).tolist() for length in LENGTHS]
    targets = [[*random.integers(8, 97, length).tolist(), 2] for length in (4, 9, 2, 7, 5)]
    ids, mask = padded(rows, 0)
    labels, known = padded(targets, 0)

    def reference() -> Any:
        return model(input_ids=ids, attention_mask=mask, labels=labels.masked_fill(known == 0, -100)).loss

    examples = [{"input_ids": row, "label": target} for row, target in zip(rows, targets, strict=True)]
    check_loss(model, task, examples, reference)
