"""Training of tiny models as a member of a group: `torchrun tests/support/members.py OUT FOLDER CASE...`.

Each case is a line of JSON: {"name", "task", "dtype", "flags"}. Process 0 writes to OUT, by the case's name, the losses
and norms of the steps, the first step's gradient and the last weights, all whole.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

_STEPS = 4


def manager_of(flags: list[str], dtype: torch.dtype) -> Any:
    """The manager that `train` would build for these flags, with the weights in another dtype."""
    from finetuning.checkpoints.store import CheckpointStore
    from finetuning.commands.references import compared
    from finetuning.commands.session import prepare
    from finetuning.types import Checkpoint
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
    evaluator = session.evaluator_to_train(tokenizer, prepared.label_names, max_length)
    evaluator.model.to(dtype)
    examples = compared(session, evaluator, prepared.examples, starts_here=True)
    assert Checkpoint
    return TrainingManager(
        session.settings, evaluator, examples["train"], examples["validation"], CheckpointStore(session.output_dir, 2),
        lambda *_: None, lambda: None, {}, session.output_dir,
    )  # fmt: skip


def whole(manager: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors as one process would have them."""
    from finetuning.device.sharding import whole_tensors

    return whole_tensors(tensors, keeps=True)


def gradient_of(manager: Any) -> dict[str, torch.Tensor]:
    """The gradient after it was summed and handed to what is stepped."""
    from finetuning.device.sharding import like

    stepped = {} if manager.stepper.shards is None else manager.stepper.shards.local
    found = {}
    for name, parameter in manager.model.named_parameters():
        gradient = stepped.get(parameter, parameter).grad
        if gradient is not None:
            found[name] = like(parameter, gradient)
    return whole(manager, {name: one.clone() for name, one in found.items()})


def trained(case: dict[str, Any]) -> dict[str, Any]:
    """Take the first steps of a case."""
    from finetuning.training.step import sums_and_norms

    manager = manager_of(case["flags"], getattr(torch, case["dtype"]))
    manager.model.train()
    manager.stepper.prepare(manager.planner)
    results, first = [], None
    for ready in manager._windows():
        manager.stepper.set_learning_rate(1e-3)
        gradient = manager.stepper.gradient(ready, manager.state.step)
        norm = manager.stepper.clip(gradient)
        first = gradient_of(manager) if first is None else first
        results.append(manager.stepper.update(gradient, norm, manager.state.step))
        manager.state.step += 1
        if len(results) == _STEPS:
            break
    evaluation = manager.evaluator.validate(manager.validation, 0, 2)
    losses = [(sums[0] / result.items, norm) for (sums, norm), result in zip(sums_and_norms(results), results)]
    state = dict(manager.model.named_parameters())
    return {
        "steps": losses, "gradient": first, "weights": whole(manager, state), "metrics": evaluation.metrics,
        "is_sharded": manager.stepper.shards is not None,
    }  # fmt: skip


def main() -> None:
    out, folder, *cases = sys.argv[1:]
    assert folder
    found = {}
    for text in cases:
        case = json.loads(text)
        found[case["name"]] = trained(case)
    if int(__import__("os").environ.get("RANK", "0")) == 0:
        torch.save(found, out)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
