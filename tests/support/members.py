"""Trains tiny models as a member of a group of processes.

A case is a line of JSON: {"name", "dtype", "flags", "processes_here"}, the flags those of `train`. Process 0 writes to
OUT, by the case's name, the losses and norms of the first steps, the first step's gradient and the last weights.
"""

from __future__ import annotations

import json
import os
from typing import Any

import torch

_STEPS = 3


def manager_of(flags: list[str], dtype: torch.dtype) -> Any:
    """The manager that `train` builds for these flags, with the weights in another dtype."""
    from finetuning.checkpoints.store import CheckpointStore
    from finetuning.commands.references import compared
    from finetuning.commands.session import prepare
    from finetuning_app import build_parser, build_session, overrides_in, read_settings
    from tests.support.runs import StopAfter
    from training_manager import TrainingManager

    arguments = build_parser().parse_args(flags)
    session = build_session(read_settings(arguments), StopAfter(), frozenset(overrides_in(arguments)))
    tokenizer = session.models.load_tokenizer()
    max_length = session.models.usable_length(tokenizer)
    with session.runtime.main_first():
        prepared = prepare(session, tokenizer, max_length)
    session = prepared.session
    load = session.models.load_model
    if dtype != torch.float32:  # quantised weights cannot be cast
        session.models.load_model = lambda *names: load(*names).to(dtype)  # type: ignore[method-assign]
    evaluator = session.evaluator_to_train(tokenizer, prepared.label_names, max_length)
    examples = compared(session, evaluator, prepared.examples, starts_here=True)
    return TrainingManager(
        session.settings, evaluator, examples["train"], examples["validation"], CheckpointStore(session.output_dir, 2),
        lambda *_: None, lambda: None, {}, session.output_dir,
    )  # fmt: skip


def gradient_of(manager: Any) -> dict[str, torch.Tensor]:
    """The whole gradient, after it was summed and handed to what is stepped."""
    from finetuning.device.sharding import Gathering, like

    shards = {} if manager.stepper.shards is None else manager.stepper.shards.local
    pairs = {
        name: (parameter, shards.get(parameter, parameter).grad) for name, parameter in manager.model.named_parameters()
    }
    found = {name: like(parameter, one) for name, (parameter, one) in pairs.items() if one is not None}
    return Gathering(found).in_memory()


def trained(case: dict[str, Any]) -> dict[str, Any]:
    """Take the first steps of a case."""
    from finetuning.device.sharding import Gathering
    from finetuning.training.results import sums_and_norms

    os.environ["LOCAL_WORLD_SIZE"] = str(case["processes_here"])  # as on machines of so many each
    manager = manager_of(case["flags"], getattr(torch, case["dtype"]))
    manager.model.train()
    manager.prepare()
    results: list[Any] = []
    first: dict[str, torch.Tensor] = {}
    for ready in manager._windows():
        manager.stepper.set_learning_rate(1e-3)
        gradient = manager.stepper.gradient(ready, manager.state.step)
        norm = manager.stepper.clip(gradient)
        first = first or gradient_of(manager)
        results.append(manager.stepper.update(gradient, norm, manager.state.step))
        manager.state.step += 1
        if len(results) == _STEPS:
            break
    metrics = manager.evaluator.validate(manager.validation, 0, 2).metrics
    values = zip(sums_and_norms(results), results, strict=True)
    return {
        "steps": [(sums[0] / result.items, norm) for (sums, norm), result in values],
        "gradient": first,
        "weights": Gathering(dict(manager.model.named_parameters())).in_memory(),
        "metrics": metrics,
        "is_sharded": manager.stepper.shards is not None,
    }


def train_cases(words: list[str]) -> int:
    """Train each case; the words are OUT CASE..., and the exit code is 0."""
    out, *cases = words
    found = {case["name"]: trained(case) for case in map(json.loads, cases)}
    if os.environ.get("RANK", "0") == "0":
        torch.save(found, out)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return 0
