"""What a runtime asks of CUDA, observed where it is asked."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from exceptions import SettingsError
from finetuning.config.schema import Settings
from finetuning.device.allocator import prepare_allocator
from finetuning.device.runtime import Runtime, choose_kernels
from finetuning.types import Batch


def runtime_on(device: str) -> Runtime:
    accelerator: Any = SimpleNamespace(device=torch.device(device), mixed_precision="no", num_processes=1)
    return Runtime(accelerator)


def batch() -> Batch:
    return Batch({"input_ids": torch.ones(2, 3, dtype=torch.long)}, labels=torch.ones(2), items=2, tokens=6)


@dataclass
class Pinned:
    """Stands for page-locked memory, and counts the tensors that were asked for."""

    fails: bool
    asked: int = 0

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        if self.fails:
            raise RuntimeError("CUDA error: OS call failed or operation not supported on this OS\nmore")
        return tensor + 1


@pytest.mark.parametrize(("device", "asked"), [("cuda", 2), ("cpu", 0)])
def test_batches_for_a_gpu_are_pinned(device: str, asked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = Pinned(fails=False)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.pin(self))
    made = runtime_on(device).pinned(batch())
    assert pinned.asked == asked
    assert int(made.inputs["input_ids"][0, 0]) == (2 if asked else 1)


def test_memory_that_cannot_be_pinned_is_a_warning_and_is_not_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pinned = Pinned(fails=True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.pin(self))
    runtime, given = runtime_on("cuda"), batch()
    with caplog.at_level(logging.WARNING):
        assert runtime.pinned(given) is given
        assert runtime.pinned(given) is given
    assert pinned.asked == 1
    assert len(caplog.records) == 1
    assert "OS call failed" in caplog.text and "more" not in caplog.text


@pytest.mark.parametrize("wanted", [True, False])
def test_deterministic_kernels_are_chosen_where_they_are_asked_for(
    wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    settings = Settings.model_validate({"training": {"deterministic": wanted}})
    prepare_allocator(settings)
    try:
        choose_kernels(settings.training.deterministic)
        assert torch.are_deterministic_algorithms_enabled() == wanted
        assert torch.backends.cudnn.deterministic == wanted
        assert (os.environ.get("CUBLAS_WORKSPACE_CONFIG") == ":4096:8") == wanted
    finally:
        choose_kernels(deterministic=False)
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)


def _unpooled() -> torch.Tensor:
    """An operation that torch has no deterministic kernel for, on a CPU either."""
    pooled, places = torch.nn.functional.max_pool2d(torch.rand(1, 1, 4, 4), 2, return_indices=True)
    return torch.nn.functional.max_unpool2d(pooled, places, 2)


def test_an_operation_without_a_deterministic_kernel_is_refused_in_training_alone() -> None:
    runtime = runtime_on("cpu")
    with runtime.adding_in_one_order():
        _unpooled()  # not asked for
    try:
        choose_kernels(deterministic=True)
        with pytest.raises(SettingsError, match="max_unpooling2d") as caught, runtime.adding_in_one_order():
            assert not torch.is_deterministic_algorithms_warn_only_enabled()  # else attention keeps its faster kernels
            _unpooled()
        assert "training.deterministic" in caught.value.where
        with pytest.warns(UserWarning, match="deterministic"):
            _unpooled()
    finally:
        choose_kernels(deterministic=False)
