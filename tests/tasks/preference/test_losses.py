"""The loss and gradient of a window of preferences beside plain transformers and torch, for every cut and layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid

from finetuning.config.schema import Settings
from finetuning.data.cleaning import Cleaner
from finetuning.data.findings import Findings
from finetuning.tasks.preference.scoring import Judged
from finetuning.tasks.registry import find_task
from finetuning.windows.layouts import Layout, OneRow, Padded
from finetuning.windows.objectives.registry import objective_of
from finetuning.windows.partition import COST_ON_CPU
from tests.support.passes import Passes
from tests.support.preference import judged_rows, pair_rows, with_template

BETA, MAX_LENGTH = 0.5, 96


@pytest.fixture(scope="module")
def folder(tiny_causal: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_template(tiny_causal, tmp_path_factory.mktemp("prefer") / "model")


def task_of(loss: str) -> Any:
    preference = {"loss": loss, "beta": BETA, "simpo_gamma": 0.3, "nll_weight": 0.7}
    return find_task(Settings.model_validate({"model": {"task": "preference"}, "preference": preference}))


def examples_of(task: Any, tokenizer: Any) -> list[dict[str, Any]]:
    source = pair_rows() if task.scores.loss.is_of_pairs else judged_rows()
    columns = task.reads.columns(list(source[0]))
    names = {column.role: column.name if column.name in source[0] else "label" for column in columns}
    cleaner = Cleaner.to_train(task, task.settings.data, columns, names, None)
    rows = list(cleaner.clean(iter(source), Findings()))
    made = task.encodes.encode({name: [row[name] for row in rows] for name in rows[0]}, tokenizer, (), MAX_LENGTH)
    return [dict(zip(made, values, strict=True)) for values in zip(*made.values(), strict=True)]


def answers_of(example: dict[str, Any]) -> list[tuple[list[int], list[int]]]:
    """Each answer's tokens and their kinds, from the columns as the encoder documents them."""
    if "other" in example:
        return [(example["input_ids"], example["trained"]), (example["other"], example["other_trained"])]
    shared, first, _ = example["branches"]
    ids, kinds = example["input_ids"], example["trained"]
    one = (ids[: shared + first], kinds[: shared + first])
    return [one, (ids[:shared] + ids[shared + first :], [0] * shared + kinds[shared + first :])]


def by_hand(model: Any, task: Any, examples: Sequence[dict[str, Any]], references: torch.Tensor) -> torch.Tensor:
    """The loss of all examples as one window, each answer computed by itself."""
    sums, tokens, sft, sft_tokens = [], [], torch.zeros(()), 0
    for example in examples:
        for place, (ids, kinds) in enumerate(answers_of(example)):
            logits = model(torch.tensor([ids])).logits[0, :-1]
            losses = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
            kind = torch.tensor(kinds[1:])
            sums.append(-losses[kind == 1].sum())
            tokens.append(int((kind == 1).sum()))
            if place == 0 and task.scores.loss.trains != "nothing":
                sft, sft_tokens = sft + losses[kind > 0].sum(), sft_tokens + int((kind > 0).sum())
    good, bad = torch.stack(sums).view(-1, 2).unbind(1)
    good_tokens, bad_tokens = torch.tensor(tokens).view(-1, 2).unbind(1)
    before_good, before_bad = references.unbind(1)
    match task.settings.preference.loss:
        case "dpo":
            losses = -logsigmoid(BETA * (good - before_good - bad + before_bad))
        case "ipo":
            losses = ((good - before_good) / good_tokens - (bad - before_bad) / bad_tokens - 1 / (2 * BETA)) ** 2
        case "cpo":
            losses = -logsigmoid(BETA * (good - bad))
        case "simpo":
            losses = -logsigmoid(BETA * (good / good_tokens - bad / bad_tokens) - 0.3)
        case "orpo":
            odds = [mean - torch.log(1 - mean.exp()) for mean in (good / good_tokens, bad / bad_tokens)]
            losses = -BETA * logsigmoid(odds[0] - odds[1])
        case "kto":
            point = (bad - before_bad).mean().clamp(min=0).detach()
            sign = torch.tensor([1.0 if example["liked"] else -1.0 for example in examples])
            losses = 1 - torch.sigmoid(sign * BETA * (good - before_good - point))
    return losses.mean() + (0.7 * sft / sft_tokens if sft_tokens else 0)


def gradient_of(model: Any) -> torch.Tensor:
    found = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    model.zero_grad()
    return found


@pytest.mark.parametrize("layout", [OneRow, Padded])
@pytest.mark.parametrize("loss", ["dpo", "ipo", "orpo", "simpo", "cpo", "kto"])
def test_loss_and_gradient_are_those_by_hand_for_every_cut(folder: Path, loss: str, layout: type[Layout]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    task = task_of(loss)
    task.scores.fit_model(model, tokenizer)
    examples = examples_of(task, tokenizer)
    references = torch.linspace(-260, -160, 2 * len(examples), dtype=torch.float64).view(-1, 2)
    for example, reference in zip(examples, references.tolist(), strict=True):
        example["reference"] = reference
    expected = by_hand(model, task, examples, references)
    expected.backward()
    gradient, objective = gradient_of(model), objective_of(task)
    lengths = np.array([len(example["input_ids"]) for example in examples])
    for budget in (1, 150, 10**6):
        shape = layout(COST_ON_CPU, MAX_LENGTH)
        cuts = shape.cut(np.arange(len(examples)), lengths, budget)
        batches = [shape.collate(task, [[examples[i] for i in row] for row in cut], tokenizer, None) for cut in cuts]
        counts = objective.counts(batches)
        assert counts[0] == len(examples)
        found = objective.accumulate(model, batches, counts, Passes(model))[0] / counts[0]
        assert float(found) == pytest.approx(float(expected.detach()), rel=1e-6)
        difference = gradient_of(model) - gradient
        assert float(difference.norm() / gradient.norm()) < 1e-7  # Llama computes norms in float32


def test_a_shared_prompt_is_computed_once(folder: Path) -> None:
    from transformers import AutoTokenizer

    task, tokenizer = task_of("dpo"), AutoTokenizer.from_pretrained(folder)
    (example, *_) = examples_of(task, tokenizer)
    (good, _), (bad, _) = answers_of(example)
    same = next(place for place, (one, other) in enumerate(zip(good, bad, strict=False)) if one != other)
    assert example["branches"][0] == len(tokenizer("배고파")["input_ids"]) - 1
    assert same >= example["branches"][0]
    assert len(example["input_ids"]) == len(good) + len(bad) - example["branches"][0]


@pytest.mark.parametrize("liked, is_told", [((1.0, 0.0), True), ((1.0, 1.0), False)])
def test_answers_of_one_kind_have_no_accuracy(liked: tuple[float, ...], is_told: bool) -> None:
    task = task_of("kto")
    rows = [Judged(((-1.0, -2.0, 3.0, 3.0, -2.0, -2.0, one, 0.0, 0.0),)) for one in liked]
    assert ("reward_accuracy" in task.scores.metrics(rows, {}, (), 0.0)) == is_told
