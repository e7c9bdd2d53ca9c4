"""Examples under one system text compute it once, and have the loss and the gradient of examples alone."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finetuning.config.schema import Settings
from finetuning.models.attention import AttentionWay
from finetuning.ops.attention_ways import padded
from finetuning.tasks.generation.beginnings import joined_by_beginning
from finetuning.tasks.registry import find_task
from finetuning.types import RandomKey
from finetuning.windows.layouts import OneRow
from tests.support.causal import PadToken, causal_architectures
from tests.windows.test_packing import loss_and_gradient, windowed

KEY = RandomKey(0, 0)


def task_of(**training: Any) -> Any:
    return find_task(Settings.model_validate({"model": {"task": "text-generation"}, "training": training}))


def conversations(systems: list[int], length: int = 24) -> list[dict[str, Any]]:
    """Questions and answers behind the system text of each number; 0 is none."""
    random, made = np.random.default_rng(0), []
    for number, system in enumerate(systems):
        beginning = [1 + (system * 31 + place * 7) % 90 for place in range(length)] if system else []
        own = random.integers(1, 97, int(random.integers(2, 12))).tolist()
        trained = [False] * len(beginning) + [bool(place % 2) for place in range(len(own) - 1)] + [True]
        made.append({"row": number, "input_ids": beginning + own, "trained": trained})
    return made


def in_one_row(task: Any, examples: list[dict[str, Any]], layout: OneRow | None = None) -> Any:
    return (layout or OneRow(0, 64)).collate(task, [examples], cast(Any, PadToken()), KEY)


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt_neox", "gpt2"])
@pytest.mark.parametrize("recomputes", [False, True])
def test_the_loss_and_the_gradient_are_those_of_examples_alone(name: str, recomputes: bool) -> None:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(causal_architectures()[name]).double().train()
    if recomputes:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    task, examples = task_of(), conversations([1, 2, 1, 0, 1, 2, 3])
    alone = loss_and_gradient(model, task, [task.encodes.collate([one], PadToken(), None) for one in examples])
    batch = in_one_row(task, examples)
    together = loss_and_gradient(model, task, [batch])
    assert together[0] == pytest.approx(alone[0], rel=1e-9)
    assert float((together[1] - alone[1]).norm() / alone[1].norm()) < 1e-7  # rotary angles are float32
    assert batch.tokens == sum(len(one["input_ids"]) for one in examples) and batch.examples() == len(examples)
    assert batch.tokens - batch.computed_tokens() == 3 * 23  # of 24 each, the last stands in every branch


@pytest.mark.parametrize("kind", ["mistral", "gemma3_text"])
def test_an_attention_window_is_kept_across_the_fork(kind: str) -> None:
    model, task, examples = windowed(kind, window=6).double(), task_of(), conversations([1, 1, 1])
    alone = loss_and_gradient(model, task, [task.encodes.collate([one], PadToken(), None) for one in examples])
    together = loss_and_gradient(model, task, [in_one_row(task, examples)])
    assert together[0] == pytest.approx(alone[0], rel=1e-9)
    assert float((together[1] - alone[1]).norm() / alone[1].norm()) < 1e-7  # rotary angles are float32


def test_what_cannot_be_shared_is_left_as_it_is() -> None:
    examples = conversations([1, 1, 0])
    trained = [{**one, "trained": [True] * len(one["input_ids"])} for one in examples]
    short = conversations([1, 1], length=10)
    for rows in (trained, short, conversations([1, 2, 3])):
        assert joined_by_beginning(rows) == rows
    noisy = in_one_row(task_of(neftune_alpha=5.0), examples)  # each example has noise of its own
    assert noisy.computed_tokens() == noisy.tokens
    by_kernels = replace(OneRow(0, 64), attention=AttentionWay(name="flash", attend=padded))
    batch = in_one_row(task_of(), examples, by_kernels)
    assert batch.dense.repeated is None and batch.computed_tokens() == batch.tokens


IDS = st.lists(st.integers(1, 3), min_size=1, max_size=8)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.booleans(), IDS), min_size=1, max_size=6))
def test_joined_rows_hold_every_example(parts: list[tuple[bool, list[int]]]) -> None:
    beginning = [5] * 20
    examples = [
        {"input_ids": (beginning if has_it else []) + own, "trained": [False] * 20 * has_it + [True] * len(own)}
        for has_it, own in parts
    ]
    rows, found = joined_by_beginning(examples), []
    for row in rows:
        shared, *branches = row.get("branches") or (0, len(row["input_ids"]))
        ends = np.cumsum([shared, *branches])
        for start, end in itertools.pairwise(ends.tolist()):
            found.append(row["input_ids"][:shared] + row["input_ids"][start:end])
            assert row["trained"][:shared] == [False] * shared
            assert shared == 0 or not row["trained"][start]  # so that no branch is predicted from another
    assert sorted(found) == sorted(example["input_ids"] for example in examples)
