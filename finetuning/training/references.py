"""Log-probabilities of answers before training, which some losses compare with: computed once, cached by content."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from finetuning.data.cache import Cache
from finetuning.data.examples import Examples
from finetuning.files import content_key
from finetuning.inference.evaluator import Evaluator
from finetuning.models.weights import hash_of_weights
from finetuning.ops.dense_attention import without_padding
from finetuning.tasks.preference.scoring import PreferenceScorer
from finetuning.types import Batch
from finetuning.windows.layouts import Layout, choose_layout

if TYPE_CHECKING:
    from datasets import Dataset

_log = logging.getLogger(__name__)
COLUMN = "reference"  # of an example: the log-probability of each of its answers


def needs_references(evaluator: Evaluator) -> bool:
    """Return whether the task's loss compares with the model before training."""
    scores = evaluator.task.scores
    return isinstance(scores, PreferenceScorer) and scores.loss.has_reference


def with_references(evaluator: Evaluator, splits: Mapping[str, Examples], cache: Cache) -> dict[str, Examples]:
    """Add the column `reference` to the examples of each split.

    The values depend on the examples, the weights and how the device computes, so these make the cache's key. A resumed
    run finds the same values, or computes them again from the weights that it began with.

    Args:
        evaluator: Holds the reference model, on its device.
        splits: Examples by split.
        cache: Where the values are kept.

    Returns:
        The examples with their reference.
    """
    weights = hash_of_weights(evaluator.model)
    layout = choose_layout(evaluator.task, evaluator.model, evaluator.max_length)
    found = {}
    for name, examples in splits.items():
        runtime = evaluator.runtime
        key = content_key(
            weights, _hash_examples(examples.table), runtime.precision, runtime.device_name, type(layout).__name__,
            str(evaluator.memory.token_budget), str(runtime.processes), torch.__version__,
        )  # fmt: skip
        path = cache.path("references", key, ".json")
        values = runtime.on_main(partial(_kept, cache, path))
        if values is None:
            _log.info("%s: 학습 전 모델로 답의 확률을 계산합니다. 예제 %s개", name, f"{len(examples):,}")
            values = _values(evaluator, examples, layout)
            runtime.on_main(partial(_keep, cache, path, values))
        found[name] = dataclasses.replace(examples, table=_with_column(examples.table, values))
    return found


def _kept(cache: Cache, path: Path) -> list[list[float]] | None:
    found: list[list[float]] | None = json.loads(path.read_text(encoding="utf-8"))[COLUMN] if cache.has(path) else None
    return found


def _keep(cache: Cache, path: Path, values: list[list[float]]) -> None:
    with cache.write(path) as partly:
        partly.write_text(json.dumps({COLUMN: values}), encoding="utf-8")


def _values(evaluator: Evaluator, examples: Examples, layout: Layout) -> list[list[float]]:
    """Compute the log-probabilities of each example's answers, in the layout that training has."""
    scores = evaluator.task.scores
    assert isinstance(scores, PreferenceScorer)

    def log_probabilities(batch: Batch) -> torch.Tensor:
        with evaluator.runtime.autocast(), without_padding(evaluator.model, batch.dense):
            return scores.log_probabilities(scores.token_losses(evaluator.model, batch).double(), batch)

    def work(indices: np.ndarray) -> list[Any]:
        rows = [examples.fetch(row) for row in layout.together(indices)]
        batch = layout.collate(evaluator.task, rows, evaluator.tokenizer, None)
        batch = evaluator.runtime.on_device(batch)
        own = log_probabilities(batch)
        answers = own.view(-1, 2) if batch.others is None else torch.stack([own, log_probabilities(batch.others)], 1)
        return list(answers.tolist())

    return evaluator.in_batches(examples.lengths, work)


def _with_column(table: Dataset, values: Sequence[Sequence[float]]) -> Dataset:
    without = table.remove_columns(COLUMN) if COLUMN in table.column_names else table
    made: Dataset = without.add_column(COLUMN, list(values), new_fingerprint="references")
    return made


def _hash_examples(table: Dataset) -> str:
    """Hash the tokens of all examples."""
    digest = hashlib.sha256()
    names = [
        name for name in ("input_ids", "trained", "branches", "other", "other_trained") if name in table.column_names
    ]
    for batch in table.select_columns(names).iter(1000):
        digest.update(json.dumps(batch).encode())
    return digest.hexdigest()
