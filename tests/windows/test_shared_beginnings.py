"""Examples under one system text compute it once, and have the loss and the gradient of examples alone."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from finetuning.config.schema import Settings
from finetuning.data.examples import Examples
from finetuning.models.attention import AttentionWay
from finetuning.ops.attention_ways import padded
from finetuning.tasks.generation.beginnings import joined_by_beginning
from finetuning.tasks.registry import find_task
from finetuning.training.ahead import WindowPlanner
from finetuning.types import RandomKey
from finetuning.windows.layouts import OneRow
from finetuning.windows.order import Window
from tests.support.causal import PadToken, causal_architectures, loss_and_gradient, windowed

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
    layout = layout or OneRow(0, 64)
    return layout.collate(task, layout.joined(task, [examples]), cast(Any, PadToken()), KEY)


def planner_of(examples: list[dict[str, Any]]) -> WindowPlanner:
    table = Dataset.from_list(examples)
    lengths = np.array([len(one["input_ids"]) for one in examples], dtype=np.int32)
    runtime: Any = SimpleNamespace(process=0, processes=1, pinned=lambda batch: batch)
    split = Examples(table, lengths, table)
    return WindowPlanner(task_of(), cast(Any, PadToken()), split, OneRow(10**6, 64), 0, runtime)


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
    tokens = sum(len(one["input_ids"]) for one in examples)
    assert tokens - batch.computed_tokens() == 3 * 23  # of 24 each, the last stands in every branch


def test_a_window_counts_every_token_and_an_estimate_counts_none_as_shared() -> None:
    """Memory is estimated, and a budget lowered, by tokens that are not shared: other windows may share nothing."""
    examples = conversations([1, 1, 1, 0, 1, 2])
    tokens = sum(len(one["input_ids"]) for one in examples)
    planner = planner_of(examples)
    window = Window(0, 0, np.arange(len(examples)))
    (batch,) = planner.plan(window, 10_000).batches
    assert batch.computed_tokens() == tokens - 3 * 23
    assert batch.tokens == batch.budgeted_tokens() == tokens and batch.examples() == len(examples)
    heaviest = planner.heaviest(10_000)
    assert heaviest.computed_tokens() == heaviest.budgeted_tokens() == tokens
    (whole,) = replace(planner, shares=False).plan(window, 10_000).batches
    assert whole.computed_tokens() == tokens and whole.dense is not None and whole.dense.repeated is None
    assert planner.saved_by_sharing() == pytest.approx(3 * 23 / tokens)
    assert planner_of(conversations([0, 0, 1, 2])).saved_by_sharing() == 0


def test_one_example_with_a_header_alone_in_common_does_not_take_the_rest_from_the_others() -> None:
    header, body = [7] * 20, [place % 90 + 1 for place in range(300)]
    many = [{"input_ids": [*header, *body, 91, number], "trained": [False] * 321 + [True]} for number in (1, 2, 3)]
    other = {"input_ids": [*header, 95, 96], "trained": [False] * 21 + [True]}
    for place in range(4):
        rows = joined_by_beginning([*many[:place], other, *many[place:]])
        assert sorted(len(row["branches"]) - 1 for row in rows) == [1, 3]
        assert sum(len(row["input_ids"]) for row in rows) == 22 + 320 + 3 * 2
    few = [{"input_ids": [*header, *range(start, start + 30)], "trained": [False] * 49 + [True]} for start in (20, 50)]
    assert sum(len(row["input_ids"]) for row in joined_by_beginning(few)) == 19 + 2 * 31


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
