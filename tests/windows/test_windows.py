"""Windows made ready: encoders without padding compute what padded ones do, and planning ahead changes nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetuning.config.schema import Settings
from finetuning.models.probes import drops_padding, embeds_without_padding, reads_first_tokens
from finetuning.ops.dense_attention import dense_tokens, without_padding
from finetuning.tasks.registry import find_task
from finetuning.training.ahead import ReadyWindow, planned_ahead
from finetuning.windows.layouts import Grouped, Layout, Padded, choose_layout, log_layout
from finetuning.windows.order import Window
from tests.support.causal import PadToken
from tests.support.encoders import config_of
from tests.support.managers import make_manager

DENSE = ["bert", "roberta", "electra", "xlm-roberta", "distilbert", "camembert", "albert"]


def inputs_of(pairs: bool) -> dict[str, torch.Tensor]:
    lengths = torch.tensor([3, 17, 8, 17, 1])
    mask = (torch.arange(17) < lengths[:, None]).long()
    torch.manual_seed(2)
    ids = torch.randint(5, 97, mask.shape).masked_fill(mask == 0, 1)
    kinds = {"token_type_ids": (torch.arange(17) > lengths[:, None] // 2).long() * mask} if pairs else {}
    return {"input_ids": ids, "attention_mask": mask, **kinds}


HEADS: dict[str, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "AutoModelForSequenceClassification": lambda out, real: out.logits,
    "AutoModelForTokenClassification": lambda out, real: out.logits[real],
    "AutoModelForQuestionAnswering": lambda out, real: torch.stack([out.start_logits, out.end_logits], -1)[real],
    "AutoModelForMaskedLM": lambda out, real: out.logits[real],
}


@pytest.mark.parametrize("kind", DENSE)
@pytest.mark.parametrize("head", HEADS)
def test_outputs_and_gradients_are_those_of_padded_rows(kind: str, head: str) -> None:
    import transformers

    torch.manual_seed(0)
    model = getattr(transformers, head).from_config(config_of(kind)).train()
    inputs = inputs_of(pairs=kind in {"bert", "electra", "albert"})
    real = inputs["attention_mask"] == 1
    found, tokens = [], dense_tokens(inputs["attention_mask"], multiple=32)
    looks_up = kind != "distilbert"  # its embeddings count positions by what was looked up
    reads_first = head == "AutoModelForSequenceClassification" and kind != "albert"  # whose layers are one
    ways = [tokens, *([replace(tokens, embeds=True)] if looks_up else [])]
    ways += [replace(ways[-1], firsts=True)] if reads_first else []
    for dense in (None, *ways):
        model.zero_grad()
        with without_padding(model, dense):
            logits = HEADS[head](model(**inputs), real)
            torch.manual_seed(3)
            (logits * torch.randn(logits.shape)).sum().backward()
        found.append([logits, *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) > 10
    for padded, *unpadded in zip(*found, strict=True):
        scale = max(1.0, float(padded.detach().abs().max()))
        assert all(float((padded - other).detach().abs().max()) <= 1e-5 * scale for other in unpadded)
    trials = (drops_padding, embeds_without_padding, reads_first_tokens)
    assert [trial(model) for trial in trials] == [True, looks_up, reads_first]
    model.to("meta")  # as `plan` and the estimate ask it
    assert [trial(model) for trial in trials] == [True, looks_up, reads_first]


def test_layers_and_embeddings_compute_no_padding() -> None:
    from transformers import AutoModel

    model = AutoModel.from_config(config_of("bert"))
    inputs, seen = inputs_of(pairs=False), []
    for part in (model.embeddings.LayerNorm, model.encoder.layer[0].intermediate):
        part.register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape[:2])))
    tokens = dense_tokens(inputs["attention_mask"])
    for dense in (tokens, replace(tokens, embeds=True), None):  # and after each block the model is as it was
        with without_padding(model, dense):
            model(**inputs)
    assert seen == [(5, 17), (1, 46), (1, 46), (1, 46), (5, 17), (5, 17)]


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_the_last_layer_of_a_classifier_computes_first_tokens_alone(adapter: str) -> None:
    """Its head reads no other; keys and values are those of all tokens, also where an adapter adds to them."""
    from peft import LoraConfig, inject_adapter_in_model
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    model: Any = AutoModelForSequenceClassification.from_config(config_of("bert")).eval()
    inputs, seen = inputs_of(pairs=False), []
    layers = model.bert.encoder.layer
    if adapter == "lora":
        parts = ["query", "key", "value", "dense"]
        inject_adapter_in_model(LoraConfig(target_modules=parts, init_lora_weights=False), model)
    layout = choose_layout(find_task(Settings()), model, 64)
    assert isinstance(layout, Grouped) and layout.firsts
    for layer in layers:
        layer.intermediate.register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape[:2])))
    with without_padding(model, replace(dense_tokens(inputs["attention_mask"]), firsts=True)):
        found = model(**inputs).logits
    assert seen == [(1, 46), (1, 5)]
    torch.testing.assert_close(found, model(**inputs).logits)


def test_gradient_checkpointing_runs_without_padding_too() -> None:
    from transformers import AutoModelForSequenceClassification

    inputs, gradients = inputs_of(pairs=False), []
    tokens = dense_tokens(inputs["attention_mask"])
    for checkpoints, dense in ((False, tokens), (True, tokens), (True, replace(tokens, embeds=True, firsts=True))):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config_of("bert")).train()
        if checkpoints:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        with without_padding(model, dense):
            model(**inputs).logits.sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    for found in gradients[1:]:
        torch.testing.assert_close(found, gradients[0])


def test_texts_of_all_lengths_are_one_micro_batch_whose_attention_pads_those_of_like_length() -> None:
    """The budget is of real tokens, and the loss and its gradient are those of texts alone."""
    from transformers import AutoModelForSequenceClassification

    random = np.random.default_rng(0)
    examples = [
        {"input_ids": random.integers(5, 97, length).tolist(), "label": length % 2, "row": row}
        for row, length in enumerate([5, 40, 7, 6] * 10)
    ]
    lengths = np.array([len(example["input_ids"]) for example in examples])
    task = find_task(Settings())
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config_of("bert")).double().eval()
    layout = choose_layout(task, model, 64)
    found = []
    for budget in (600, 100, 1):
        cuts = layout.cut(np.arange(len(examples)), lengths, budget)
        model.zero_grad()
        total = 0.0
        for cut in cuts:
            batch = layout.collate(task, [[examples[one] for one in row] for row in cut], PadToken(), None)  # type: ignore[arg-type]
            assert batch.tokens == sum(int(lengths[row].sum()) for row in cut) <= max(budget, 40)
            assert batch.dense is None or not batch.dense.groups or batch.budgeted_tokens() == batch.tokens
            with without_padding(model, batch.dense):
                loss = task.scores.training_loss(model, batch)
            loss.backward()
            total += float(loss)
        groups = () if batch.dense is None else batch.dense.groups  # of the last micro-batch
        found.append((len(cuts), len(groups), total, [parameter.grad for parameter in model.parameters()]))
    assert [(cuts, groups) for cuts, groups, *_ in found][::2] == [(1, 2), (40, 0)]
    for _, _, loss, gradients in found[:2]:
        assert loss == pytest.approx(found[2][2], rel=1e-12)
        torch.testing.assert_close(gradients, found[2][3], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("packing", "kind"), [(None, Grouped), (True, Grouped), (False, Padded)])
def test_packing_is_a_setting(packing: bool | None, kind: type[Layout], caplog: pytest.LogCaptureFixture) -> None:
    from transformers import AutoModelForSequenceClassification

    caplog.set_level("INFO")
    task = find_task(Settings.model_validate({"data": {"packing": packing}}))
    layout = choose_layout(task, AutoModelForSequenceClassification.from_config(config_of("bert")), 64)
    log_layout(layout, task)
    assert type(layout) is kind
    assert len(caplog.records) == 1
    assert "data.packing" in caplog.text


def test_impossible_packing_gives_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_config(config_of("deberta-v2"))
    task = find_task(Settings.model_validate({"data": {"packing": True}}))
    layout = choose_layout(task, model, 64)
    log_layout(layout, task)
    assert type(layout) is Padded
    assert "WARNING" in {record.levelname for record in caplog.records}


def window(number: int) -> Window:
    return Window(0, number, np.arange(3))


def test_windows_come_in_order_from_one_other_thread() -> None:
    threads = set()

    def plan(window: Window) -> ReadyWindow:
        threads.add(threading.get_ident())
        return ReadyWindow(window, [], 1)

    ready = list(planned_ahead(plan, (window(n) for n in range(7))))
    assert [one.window.number for one in ready] == list(range(7))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_an_error_of_a_plan_is_raised_where_its_window_would_have_come() -> None:
    def plan(window: Window) -> ReadyWindow:
        if window.number == 3:
            raise ValueError("broken row")
        return ReadyWindow(window, [], 1)

    seen = []
    with pytest.raises(ValueError, match="broken row"):
        for ready in planned_ahead(plan, (window(n) for n in range(7))):
            seen.append(ready.window.number)
    assert seen == [0, 1, 2]


def test_a_window_planned_before_memory_ran_out_is_cut_again(tiny_model: Path, tmp_path: Path) -> None:
    manager = make_manager(tiny_model, tmp_path, "text-classification", torch.float32)
    ready = manager.plan(Window(0, 0, np.arange(16)))
    manager.memory.token_budget = 40
    largest: list[int] = []
    manager.model.register_forward_pre_hook(
        lambda _m, _a, kwargs: largest.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    manager.train_window(ready)
    assert max(largest) <= 64  # an example longer than the budget goes alone
    assert len(largest) > len(ready.batches)
