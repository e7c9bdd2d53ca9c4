"""The trial of a model before the first step: what it refuses, and what it leaves to the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from exceptions import ModelError
from finetuning.training.trial import try_model
from tests.support.managers import make_manager


def test_a_model_that_cannot_compute_the_task_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    manager = make_manager(tiny_model, tmp_path, "text-classification", torch.float32)
    try_model(manager.evaluator, manager.train_examples, seed=0)

    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("bbox is missing\nand more")

    manager.model.forward = refuse
    with pytest.raises(ModelError, match="text-classification 태스크를 계산하지 못합니다: bbox is missing$"):
        try_model(manager.evaluator, manager.train_examples, seed=0)


def test_memory_that_runs_out_is_left_to_the_run(tiny_model: Path, tmp_path: Path) -> None:
    manager = make_manager(tiny_model, tmp_path, "text-classification", torch.float32)

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    manager.model.forward = fail
    try_model(manager.evaluator, manager.train_examples, seed=0)


def test_a_trial_changes_nothing(tiny_model: Path, tmp_path: Path) -> None:
    manager = make_manager(tiny_model, tmp_path, "fill-mask", torch.float32)
    manager.model.train()
    before, state = torch.random.get_rng_state(), {k: v.clone() for k, v in manager.model.state_dict().items()}
    try_model(manager.evaluator, manager.train_examples, seed=0)
    assert manager.model.training
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(state[name], tensor) for name, tensor in manager.model.state_dict().items())
