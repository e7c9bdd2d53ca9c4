"""The loss and gradient of a window of lists beside plain transformers and torch, for every cut and layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from finetuning.windows.layouts import Dense, Layout, OneRow, Packed, Padded
from finetuning.windows.objectives.registry import objective_of
from tests.support.passes import Passes
from tests.support.reranker import LISTS, PAIRS, TEACHER, examples_of, task_of, taught

LENGTH = 128  # the longest text has 90 tokens of a byte each
PROMPT = "Q {query} D {passage} A "
_WITHOUT_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def model_of(folder: Path, task: Any) -> tuple[Any, Any]:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    options = {"num_labels": 1, **_WITHOUT_DROPOUT} if task.name == "reranker" else {}
    auto_class = getattr(transformers, task.auto_class)
    model = auto_class.from_pretrained(folder, dtype=torch.float64, **options).train()
    task.scores.fit_model(model, tokenizer)
    return model, tokenizer


def window_of(
    task: Any, model: Any, tokenizer: Any, rows: list[dict[str, Any]], layout: Layout, cut: list[list[int]]
) -> tuple[float, torch.Tensor]:
    """The mean loss and the gradient of a window that is cut so."""
    examples = examples_of(task, tokenizer, rows, LENGTH)
    batches = [
        layout.collate(task, [[examples[place] for place in row] for row in layout.together(np.array(part))],
                       tokenizer, None)
        for part in cut
    ]  # fmt: skip
    objective = objective_of(task)
    counts = objective.counts(batches)
    model.zero_grad()
    sums = objective.accumulate(model, batches, counts, Passes(model))
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return float(sums[0]) / counts[0], torch.cat(gradients)


def scores_by_transformers(model: Any, tokenizer: Any, row: dict[str, Any]) -> list[torch.Tensor]:
    pairs = [(row["query"], text) for text in (*row["pos"], *row["neg"])]
    return [model(**tokenizer(*pair, return_tensors="pt")).logits[0, 0] for pair in pairs]


def scores_by_tokens(model: Any, tokenizer: Any, row: dict[str, Any]) -> list[torch.Tensor]:
    texts = [PROMPT.replace("{query}", row["query"]).replace("{passage}", text) for text in (*row["pos"], *row["neg"])]
    logits = [model(**tokenizer(text, return_tensors="pt")).logits[0, -1] for text in texts]
    yes, no = (tokenizer(letter)["input_ids"][0] for letter in "yn")
    return [one.log_softmax(0)[yes] - one.log_softmax(0)[no] for one in logits]


def expected(loss: str, scores: list[list[torch.Tensor]]) -> torch.Tensor:
    """The loss of a window, list by list, as its papers write it."""
    terms = list[torch.Tensor]()
    for row, own, (good, bad) in zip(LISTS, scores, TEACHER, strict=True):
        count = len(row["pos"])
        first, second = own[:count], own[count:]
        if loss == "listwise":
            each = [-torch.stack([one, *second]).log_softmax(0)[0] for one in first]
            terms.append(torch.stack(each).mean())
        elif loss == "margin_mse":
            terms += [
                ((one - other) - (g - b)) ** 2
                for one, g in zip(first, good, strict=True)
                for other, b in zip(second, bad, strict=True)
            ]
        elif loss == "mse":
            terms += [(one - 1) ** 2 for one in first] + [one**2 for one in second]
        else:
            terms += [-logsigmoid(one) for one in first] + [-logsigmoid(-one) for one in second]
    return torch.stack(terms).mean()


CUTS = [[[0, 1, 2, 3]], [[0], [1], [2], [3]], [[3, 1], [2, 0]]]


@pytest.mark.parametrize("loss", ["listwise", "bce", "mse", "margin_mse"])
@pytest.mark.parametrize(
    ("name", "layouts"), [("reranker", (Padded, Dense)), ("causal-reranker", (Padded, OneRow, Packed))]
)
def test_the_gradient_is_the_same_for_every_cut_and_layout(
    loss: str, name: str, layouts: tuple[type[Layout], ...], tiny_model: Path, tiny_causal: Path
) -> None:
    task = task_of(name, loss=loss, prompt=PROMPT, format="lists")
    model, tokenizer = model_of(tiny_model if name == "reranker" else tiny_causal, task)
    rows = taught() if loss == "margin_mse" else LISTS
    scores = scores_by_transformers if name == "reranker" else scores_by_tokens
    model.zero_grad()
    reference = expected(loss, [scores(model, tokenizer, row) for row in LISTS])
    reference.backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    for layout in layouts:
        for cut in CUTS:
            value, found = window_of(task, model, tokenizer, rows, layout(64, LENGTH), cut)
            assert value == pytest.approx(float(reference.detach()), rel=1e-10)
            assert float((found - gradient).abs().max()) <= 1e-10 * float(gradient.abs().max())


def test_pairs_are_lists_of_one(tiny_model: Path) -> None:
    task = task_of(loss="bce", format="pairs")
    model, tokenizer = model_of(tiny_model, task)
    texts = [(row["질문"], row["문서"]) for row in PAIRS]
    logits = torch.stack([model(**tokenizer(*pair, return_tensors="pt")).logits[0, 0] for pair in texts])
    reference = binary_cross_entropy_with_logits(logits, torch.tensor([float(row["정답"]) for row in PAIRS]).double())
    cut = [list(range(3)), list(range(3, len(PAIRS)))]
    value, _ = window_of(task, model, tokenizer, PAIRS, Dense(64, LENGTH), cut)
    assert value == pytest.approx(float(reference.detach()), rel=1e-10)
