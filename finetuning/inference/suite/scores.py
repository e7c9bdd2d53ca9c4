"""Runs a suite on a model and takes lm-evaluation-harness's scores, with the score of each row for comparisons."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import lm_eval.evaluator
import torch

from finetuning.data.cache import Cache
from finetuning.files import content_key
from finetuning.inference.evaluator import Evaluator
from finetuning.inference.suite.language_model import SuiteModel
from finetuning.inference.suite.tasks import Suite
from finetuning.models.weights import hash_of_weights
from finetuning.reporting.suite import TaskScore

_log = logging.getLogger(__name__)
_FEW_SHOT_SEED = 1234  # lm-evaluation-harness's own


def suite_scores(evaluator: Evaluator, suite: Suite, cache: Cache) -> list[TaskScore]:
    """Score a model on a suite, or read its scores where the same weights were scored on the same rows before.

    Args:
        evaluator: Holds the model, on its device.
        suite: The tasks.
        cache: Where scores are kept.

    Returns:
        The tasks and groups, in the order in which they are shown.
    """
    runtime = evaluator.runtime
    names = json.dumps([name for name, _, _ in suite.outline()])
    key = content_key(
        suite.key(), names, hash_of_weights(evaluator.model), str(evaluator.tokenizer.backend_tokenizer.to_str()),
        runtime.precision, runtime.device_name, torch.__version__,
    )  # fmt: skip
    path = cache.path("suite", key, ".json")
    if cache.has(path):
        _log.info("이미 채점한 모델이어서 저장해 둔 점수를 씁니다.")
        return [TaskScore.of(found) for found in json.loads(path.read_text(encoding="utf-8"))["tasks"]]
    scores = list(_scored(evaluator, suite))
    with cache.write(path) as partial:
        partial.write_text(json.dumps({"tasks": [dataclasses.asdict(one) for one in scores]}), encoding="utf-8")
    return scores


def _scored(evaluator: Evaluator, suite: Suite) -> Iterator[TaskScore]:
    for task in suite.loaded["tasks"].values():
        task.set_fewshot_seed(seed=_FEW_SHOT_SEED)
    found: Mapping[str, Any] = lm_eval.evaluator.evaluate(SuiteModel(evaluator), suite.loaded, log_samples=True)
    for name, level, is_group in suite.outline():
        inner = [one.task_name for one in suite.loaded["groups"][name].get_all_tasks()] if is_group else [name]
        metrics = {key.partition(",")[0]: value for key, value in found["results"][name].items() if "," in key}
        numbers = {key: float(value) for key, value in metrics.items() if isinstance(value, int | float)}
        metric = "acc" if "acc" in numbers else next((key for key in numbers if not key.endswith("_stderr")), "")
        samples = (row for one in inner for row in sorted(found["samples"][one], key=lambda row: row["doc_id"]))
        each = [row.get(metric) for row in samples]
        by_row = tuple(map(float, each)) if all(isinstance(one, int | float) for one in each) else ()
        yield TaskScore(name, level, is_group, len(each), metric, numbers, by_row)
