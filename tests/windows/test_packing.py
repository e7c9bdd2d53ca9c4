"""Rows of several sequences: filled well, and the same loss and gradients as one sequence a row."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetuning.config.schema import Settings
from finetuning.models.probes import attends_within_sequences, isolates
from finetuning.tasks.registry import find_task
from finetuning.windows.layouts import OneRow
from finetuning.windows.packing import best_fit, pack_window
from tests.support.causal import PadToken, causal_architectures, examples_of, loss_and_gradient, windowed


@given(st.lists(st.integers(1, 60), min_size=1, max_size=50), st.integers(60, 200))
def test_every_sequence_is_in_one_row_that_it_fits(lengths: list[int], capacity: int) -> None:
    made = best_fit(np.arange(len(lengths)), np.array(lengths), capacity)
    assert sorted(index for row in made for index in row.tolist()) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= capacity for row in made)
    if len(made) > 1:  # best fit never leaves two rows that would have been one
        fullest = sorted(sum(lengths[index] for index in row) for row in made)
        assert fullest[0] + fullest[1] > capacity


@given(st.lists(st.integers(1, 60), min_size=1, max_size=50), st.integers(1, 500))
def test_micro_batches_keep_to_the_budget(lengths: list[int], budget: int) -> None:
    sizes = np.array(lengths)
    batches = pack_window(np.arange(len(lengths)), sizes, 64, budget)
    assert sorted(i for rows in batches for row in rows for i in row.tolist()) == list(range(len(lengths)))
    for rows in batches:
        padded = len(rows) * max(int(sizes[row].sum()) for row in rows)
        assert padded <= budget or (len(rows) == 1 and padded <= max(lengths))


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt_neox", "gpt2"])
def test_packed_rows_have_the_loss_and_gradient_of_single_ones(name: str) -> None:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(causal_architectures()[name]).train()
    task: Any = find_task(Settings.model_validate({"model": {"task": "text-generation"}}))
    examples = examples_of(1, 12)
    lengths = np.array([len(example["input_ids"]) for example in examples])
    alone = loss_and_gradient(model, task, [task.encodes.collate([example], PadToken(), None) for example in examples])
    packed = pack_window(np.arange(12), lengths, 64, 128)
    assert any(len(row) > 1 for rows in packed for row in rows)
    batches = [task.encodes.collate_rows([[examples[i] for i in row] for row in rows], PadToken()) for rows in packed]
    together = loss_and_gradient(model, task, batches)
    assert sum(batch.items for batch in batches) == sum(sum(example["trained"][1:]) for example in examples)
    assert together[0] == pytest.approx(alone[0], rel=1e-5)
    assert float((together[1] - alone[1]).norm() / alone[1].norm()) < 1e-5
    assert isolates(model)


@pytest.mark.parametrize("recomputes", [False, True])
@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt_neox", "gpt2"])
def test_one_row_has_the_loss_and_gradient_of_single_ones(name: str, recomputes: bool) -> None:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(causal_architectures()[name]).train()
    if recomputes:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    task: Any = find_task(Settings.model_validate({"model": {"task": "text-generation"}}))
    examples = examples_of(1, 12)
    alone = loss_and_gradient(model, task, [task.encodes.collate([example], PadToken(), None) for example in examples])
    batches = [_in_one_row(task, examples[:5]), _in_one_row(task, examples[5:])]
    together = loss_and_gradient(model, task, batches)
    assert sum(batch.tokens for batch in batches) == sum(batch.inputs["input_ids"].numel() for batch in batches)
    assert together[0] == pytest.approx(alone[0], rel=1e-5)
    assert float((together[1] - alone[1]).norm() / alone[1].norm()) < 1e-5
    assert attends_within_sequences(model, 64)
    assert attends_within_sequences(model.bfloat16(), 64)
    assert attends_within_sequences(model.to("meta"), 64)  # as `plan` has it, and the estimate of a run


def _in_one_row(task: Any, examples: list[dict[str, Any]]) -> Any:
    return OneRow(0, 64).collate(task, [examples], cast(Any, PadToken()), None)


@pytest.mark.parametrize("kind", ["mistral", "gemma3_text", "exaone4", "qwen2"])
def test_an_attention_window_is_kept_within_each_sequence(kind: str) -> None:
    """Sequences longer than the window, shorter ones, and one of a token."""
    model = windowed(kind, window=6)
    task: Any = find_task(Settings.model_validate({"model": {"task": "text-generation"}}))
    examples = [
        {"input_ids": [1 + (7 * i + size) % 96 for i in range(size)], "trained": [True] * size}
        for size in (31, 5, 2, 18)
    ]
    alone = loss_and_gradient(model, task, [task.encodes.collate([one], PadToken(), None) for one in examples])
    together = loss_and_gradient(model, task, [_in_one_row(task, examples)])
    assert together[0] == pytest.approx(alone[0], rel=1e-5)
    assert float((together[1] - alone[1]).norm() / alone[1].norm()) < 1e-5
    wider = windowed(kind, window=600)
    assert abs(loss_and_gradient(wider, task, [_in_one_row(task, examples)])[0] - alone[0]) > 1e-5  # the window matters
    assert attends_within_sequences(model, 64)
    assert attends_within_sequences(model.bfloat16(), 64)


def test_a_window_that_does_not_reach_the_attention_is_refused() -> None:
    model = windowed("exaone4", window=6)
    for layer in model.model.layers:
        layer.self_attn.is_sliding, layer.self_attn.sliding_window = False, 6
    assert not attends_within_sequences(model, 64)


def test_long_attention_is_the_models_own() -> None:
    """Sequences too long for _attend_short use torch's attention."""
    model = windowed("mistral", window=300)
    assert attends_within_sequences(model, 300)
    assert attends_within_sequences(model, 301)
    task: Any = find_task(Settings.model_validate({"model": {"task": "text-generation"}}))
    long = [{"input_ids": [1 + i % 96 for i in range(size)], "trained": [True] * size} for size in (290, 17, 270)]
    alone = loss_and_gradient(model, task, [task.encodes.collate([example], PadToken(), None) for example in long])
    together = loss_and_gradient(model, task, [_in_one_row(task, long)])
    assert together[0] == pytest.approx(alone[0], rel=1e-5)
    assert float((together[1] - alone[1]).norm() / alone[1].norm()) < 1e-5


@given(st.lists(st.integers(1, 60), min_size=1, max_size=50))
def test_packed_rows_have_the_width_of_least_padding(lengths: list[int]) -> None:
    sizes = np.array(lengths)
    (rows,) = pack_window(np.arange(len(lengths)), sizes, 512, 10**6)
    padded = len(rows) * max(int(sizes[row].sum()) for row in rows)
    for width in (max(lengths), max(512, max(lengths))):
        others = best_fit(np.arange(len(lengths)), sizes, width)
        assert padded <= len(others) * max(int(sizes[row].sum()) for row in others)


def test_a_packed_loss_that_leaks_differs() -> None:
    """Positions that do not restart change the loss by far more than the tolerance of the test above."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(causal_architectures()["llama"]).train()
    task: Any = find_task(Settings.model_validate({"model": {"task": "text-generation"}}))
    examples = examples_of(1, 4)
    alone = loss_and_gradient(model, task, [task.encodes.collate([example], PadToken(), None) for example in examples])
    batch = task.encodes.collate_rows([examples], PadToken())
    batch.inputs["position_ids"][:] = torch.arange(batch.inputs["input_ids"].shape[1])
    leaked = loss_and_gradient(model, task, [batch])
    assert float((leaked[1] - alone[1]).norm() / alone[1].norm()) > 1e-3
