"""The loss and gradient of a window of texts: those of plain autograd over all of them, however the window is cut."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch
from datasets import Dataset

from finetuning.config.schema import Settings
from finetuning.data.examples import Examples
from finetuning.tasks.registry import find_task
from finetuning.types import Batch
from finetuning.windows.layouts import Dense, Layout, OneRow, Padded
from finetuning.windows.objectives.registry import objective_of
from tests.support.causal import PadToken
from tests.support.encoders import config_of
from tests.support.passes import Passes, SharedPasses

COUNT, TEMPERATURE = 6, 0.2


def task_of(**options: Any) -> Any:
    settings = {"model": {"task": "embedding"}, "embedding": {"temperature": TEMPERATURE, **options}}
    return find_task(Settings.model_validate(settings))


def texts_of(negatives: int = 1) -> list[list[list[int]]]:
    """Token ids of each example's texts; examples 0 and 1 have one passage, 2 and 3 one query."""
    random = np.random.default_rng(0)
    made = [
        [random.integers(3, 97, random.integers(2, 30)).tolist() for _ in range(2 + negatives)] for _ in range(COUNT)
    ]
    made[1][1], made[3][0] = made[0][1], made[2][0]
    return made


def examples_of(texts: Sequence[Sequence[list[int]]], scores: bool = False) -> Examples:
    known: dict[tuple[int, ...], int] = {}
    table = {
        "row": list(range(1, len(texts) + 1)),
        "input_ids": [[token for text in example for token in text] for example in texts],
        "parts": [[len(text) for text in example] for example in texts],
        "contents": [
            [half for text in example for half in (known.setdefault(tuple(text), len(known)), 0)] for example in texts
        ],
        **({"score": [number / COUNT for number in range(len(texts))]} if scores else {}),
    }
    lengths = np.array([len(ids) for ids in table["input_ids"]], dtype=np.int32)
    return Examples(Dataset.from_dict(table), lengths, Dataset.from_dict({"row": table["row"]}))


def model_of(kind: str, dropout: float = 0.0) -> Any:
    from transformers import AutoModel

    torch.manual_seed(0)
    config = config_of(kind)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = dropout
    return AutoModel.from_config(config).double().train()


def batches_of(task: Any, layout: Layout, examples: Examples, budget: int, mine: Any = None) -> list[Batch]:
    positions = np.arange(len(examples)) if mine is None else mine
    cuts = layout.cut(examples.sequences_of(positions), examples.sequence_lengths, budget)
    rows = ([examples.fetch_sequences(row) for row in cut] for cut in cuts)
    return [layout.collate(task, row, cast(Any, PadToken()), None) for row in rows]


def gradient_of(model: Any) -> torch.Tensor:
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return found


def accumulated(model: Any, task: Any, batches: list[Batch]) -> tuple[torch.Tensor, torch.Tensor]:
    objective = objective_of(task)
    sums = objective.accumulate(model, batches, objective.counts(batches), cast(Any, Passes(model)))
    return sums, gradient_of(model)


def by_hand(model: Any, texts: Sequence[Sequence[list[int]]], pooling: str, both: bool) -> torch.Tensor:
    """InfoNCE over the whole window, each text computed by itself."""

    def vector(ids: list[int]) -> torch.Tensor:
        states = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        pooled = {"mean": states.mean(0), "cls": states[0], "last": states[-1]}[pooling]
        return pooled / pooled.norm()

    queries = torch.stack([vector(example[0]) for example in texts])
    passages = [example[1] for example in texts] + [text for example in texts for text in example[2:]]
    scores = queries @ torch.stack([vector(text) for text in passages]).T / TEMPERATURE
    for row, example in enumerate(texts):
        answers = [other[1] for other in texts if other[0] == example[0]]
        for column, passage in enumerate(passages):
            if column != row and passage in answers:
                scores[row, column] = -math.inf
    own = torch.arange(len(texts))
    loss = torch.nn.functional.cross_entropy(scores, own)
    other = torch.nn.functional.cross_entropy(scores[:, : len(texts)].T, own)
    return (loss + other) / 2 if both else loss


@pytest.mark.parametrize(
    ("kind", "pooling", "layout", "both"),
    [("bert", "mean", Dense, True), ("bert", "cls", Padded, False), ("llama", "last", OneRow, False)],
)
def test_the_gradient_is_that_of_the_uncut_window(kind: str, pooling: str, layout: type[Layout], both: bool) -> None:
    model, texts = model_of(kind), texts_of()
    task, examples = task_of(pooling=pooling, both_directions=both), examples_of(texts)
    loss = by_hand(model, texts, pooling, both)
    loss.backward()
    expected = gradient_of(model)
    for budget in (1, 60, 10**6):
        batches = batches_of(task, layout(64, 64), examples, budget)
        sums, gradient = accumulated(model, task, batches)
        assert objective_of(task).counts(batches) == (COUNT,)
        assert float(sums[0] / COUNT - loss.detach()) == pytest.approx(0, abs=1e-12)
        assert float((gradient - expected).abs().max()) < 1e-10
    assert len(batches_of(task, layout(64, 64), examples, 1)) == 3 * COUNT  # texts of one example are divided


@pytest.mark.parametrize("loss", ["cosent", "cosine_mse", "infonce"])
def test_every_loss_and_matryoshka_dimensions_are_the_same_for_every_cut(loss: str) -> None:
    model, examples = model_of("bert"), examples_of(texts_of(negatives=0), scores=loss != "infonce")
    task = task_of(loss=loss, matryoshka_dimensions=[8, 16])
    found = [accumulated(model, task, batches_of(task, Dense(64, 64), examples, budget)) for budget in (1, 80, 10**6)]
    for sums, gradient in found[:-1]:
        torch.testing.assert_close(sums, found[-1][0], rtol=1e-12, atol=1e-12)
        assert float((gradient - found[-1][1]).abs().max()) < 1e-10 < float(gradient.abs().max())


def test_both_passes_of_a_micro_batch_see_one_dropout_mask() -> None:
    model, task = model_of("bert", dropout=0.5), task_of()
    batches, seen = batches_of(task, Dense(64, 64), examples_of(texts_of()), 60), list[tuple[bool, torch.Tensor]]()
    objective: Any = objective_of(task)
    embed = objective.scores.embed

    def recorded(model: Any, batch: Batch) -> torch.Tensor:
        vectors = embed(model, batch)
        seen.append((vectors.requires_grad, vectors.detach()))
        return vectors

    objective.scores.embed = recorded
    torch.manual_seed(7)
    objective.accumulate(model, batches, (COUNT,), Passes(model))
    first, again = seen[: len(batches)], seen[len(batches) :]
    assert len(batches) > 2 and len(again) == len(batches) - 1  # the last one runs once
    assert [grads for grads, _ in seen] == [False] * (len(batches) - 1) + [True] * len(batches)
    assert all(torch.equal(one, other) for (_, one), (_, other) in zip(first[:-1], again, strict=True))
    assert not torch.equal(embed(model, batches[0]).detach(), first[0][1])  # dropout is on


def test_the_next_window_draws_after_all_that_this_one_drew() -> None:
    model, task = model_of("bert", dropout=0.5), task_of()
    batches, states = batches_of(task, Dense(64, 64), examples_of(texts_of()), 60), list[torch.Tensor]()
    objective: Any = objective_of(task)
    embed = objective.scores.embed

    def recorded(model: Any, batch: Batch) -> torch.Tensor:
        vectors = embed(model, batch)
        states.append(torch.get_rng_state())
        return vectors

    objective.scores.embed = recorded
    objective.accumulate(model, batches, (COUNT,), Passes(model))
    assert torch.equal(torch.get_rng_state(), states[len(batches) - 1])  # that of the first pass's end


def test_autocast_keeps_no_casts_of_the_pass_without_gradients() -> None:
    model, task = model_of("bert").float(), task_of()
    examples, found = examples_of(texts_of()), []
    for budget in (1, 10**6):
        with torch.autocast("cpu", torch.bfloat16):
            found.append(accumulated(model, task, batches_of(task, Dense(64, 64), examples, budget))[1])
    assert found[0].shape == found[1].shape  # no weight is left without a gradient
    assert float((found[0] - found[1]).norm() / found[1].norm()) < 0.05


@pytest.mark.parametrize("shares", [([0, 2, 4], [1, 3, 5]), (list(range(COUNT)), [])])
def test_the_processes_windows_are_one_pool(shares: tuple[list[int], list[int]]) -> None:
    """Each process, here a thread, has its own texts; their gradients add up to that of the window."""
    task, examples = task_of(), examples_of(texts_of())
    whole = accumulated(model_of("bert"), task, batches_of(task, Dense(64, 64), examples, 10**6))
    values, together, found = [None, None], threading.Barrier(2), dict[int, tuple[torch.Tensor, torch.Tensor]]()

    def run(rank: int) -> None:
        mine, model = np.array(shares[rank], dtype=np.int64), models[rank]
        batches = batches_of(task, Dense(64, 64), examples, 60, mine) if len(mine) else []
        passes = SharedPasses(model, rank, values, together)
        sums = objective_of(task).accumulate(model, batches, (COUNT,), cast(Any, passes))
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
        found[rank] = sums, torch.cat([one.flatten() for one in gradients])

    models = [model_of("bert"), model_of("bert")]
    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.testing.assert_close(found[0][0] + found[1][0], whole[0], rtol=1e-12, atol=1e-12)
    named = dict(model_of("bert").named_parameters())
    used = torch.cat([torch.full((p.numel(),), "pooler" not in name) for name, p in named.items()])
    assert float(((found[0][1] + found[1][1])[used] - whole[1]).abs().max()) < 1e-10
