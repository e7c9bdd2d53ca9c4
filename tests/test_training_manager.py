"""The window's mathematics: gradients whatever the cut, the schedule, and steps that are not finite."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from exceptions import ModelError, ResourceError, SettingsError, StopRequested
from finetuning.config.schema import TrainingSettings
from finetuning.device.loss_scale import LossScale
from finetuning.inference.evaluator import Evaluator
from finetuning.ops import head_gradient
from finetuning.training.best_model import BestModel
from finetuning.training.results import StepResult, sums_and_norms
from finetuning.training.schedules import schedule_of
from finetuning.windows.order import Window
from tests.support.managers import fail_above, gradient_at, make_manager
from training_manager import TrainingManager


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("task_name", ["text-classification", "fill-mask"])
@pytest.mark.parametrize("size", [8, 7, 1])
def test_gradient_of_a_window_is_the_same_for_every_cut(
    tiny_model: Path, tmp_path: Path, task_name: str, size: int, dtype: torch.dtype, tolerance: float
) -> None:
    manager = make_manager(tiny_model, tmp_path, task_name, dtype)
    window = Window(0, 0, np.arange(23)[-size:])  # 8 is a whole window, 7 the last of 23, 1 the smallest
    whole = gradient_at(manager, window, 10**6)
    for budget in (1, 30, 64, 100, 200):
        cut = gradient_at(manager, window, budget)
        error = float((cut - whole).norm() / whole.norm())
        assert error <= tolerance


@pytest.mark.parametrize("task_name", ["text-generation", "fill-mask"])
def test_a_heads_gradient_that_is_computed_later_is_the_same_for_every_cut(
    model_of: Callable[[str], Path], tmp_path: Path, task_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head's weight is the embedding's, too."""
    manager = make_manager(model_of(task_name), tmp_path, task_name, torch.float64)
    manager.task.scores.fit_model(manager.model, manager.tokenizer)
    window = Window(0, 0, np.arange(8))
    expected = gradient_at(manager, window, 10**6)
    monkeypatch.setattr(head_gradient, "_LARGE", 0)
    manager.prepare()
    assert any(isinstance(part, head_gradient.LaterGradient) for part in manager.stepper.late)
    for budget in (1, 64, 10**6):
        torch.testing.assert_close(gradient_at(manager, window, budget), expected, rtol=1e-7, atol=1e-9)


def test_gradient_of_a_window_is_that_of_the_mean_loss(tiny_model: Path, tmp_path: Path) -> None:
    manager = make_manager(tiny_model, tmp_path, "text-classification", torch.float64)
    window = Window(0, 0, np.arange(8))
    batch = manager.task.encodes.collate(manager.train_examples.fetch(list(range(8))), manager.tokenizer, None)
    manager.model.train()
    manager.model(**batch.inputs, labels=batch.labels).loss.backward()
    reference = torch.cat([p.grad.flatten() for p in manager.model.parameters() if p.grad is not None])
    manager.optimizer.zero_grad(set_to_none=True)
    torch.testing.assert_close(gradient_at(manager, window, 64), reference, rtol=1e-10, atol=1e-12)


SCHEDULES: list[tuple[str, dict[str, Any]]] = [
    ("linear", {}),
    ("cosine", {}),
    ("constant", {}),
    ("constant_with_warmup", {}),
    ("cosine_with_restarts", {"num_cycles": 2}),
    ("cosine_with_min_lr", {"min_lr_rate": 0.2}),
    ("polynomial", {"power": 2.0, "lr_end": 1e-6}),
    ("inverse_sqrt", {}),
    ("warmup_stable_decay", {"num_decay_steps": 10, "decay_type": "linear"}),
]


@pytest.mark.parametrize(("name", "options"), SCHEDULES)
@pytest.mark.parametrize("warmup", [0, 7])
def test_schedule_is_that_of_transformers(name: str, options: dict[str, Any], warmup: int) -> None:
    from transformers import get_scheduler

    settings = TrainingSettings.model_validate(
        {"lr_scheduler": name, "warmup_steps": warmup, "lr_scheduler_options": options}
    )
    schedule = schedule_of(settings, 40)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=settings.learning_rate)
    its_name = "constant_with_warmup" if name == "constant" else name
    reference = get_scheduler(its_name, optimizer, warmup, 40, options)
    for step in range(40):
        assert schedule(step) * settings.learning_rate == pytest.approx(reference.get_last_lr()[0], rel=1e-12)
        optimizer.step()
        reference.step()


@pytest.mark.parametrize(
    "message", ["CUDA out of memory. Tried to allocate 20 MiB", "DefaultCPUAllocator: not enough memory"]
)
def test_out_of_memory_cuts_smaller_and_changes_nothing(tiny_model: Path, tmp_path: Path, message: str) -> None:
    plain = make_manager(tiny_model, tmp_path, "text-classification", torch.float64)
    short = make_manager(tiny_model, tmp_path, "text-classification", torch.float64)
    fail_above(short, 70, message)
    window = Window(0, 0, np.arange(16))
    expected, result = plain.train_window(plain.plan(window)), short.train_window(short.plan(window))
    assert short.memory.token_budget <= 70 < plain.memory.token_budget
    assert result.sums.tolist() == pytest.approx(expected.sums.tolist(), rel=1e-12)
    for name, parameter in plain.model.named_parameters():
        torch.testing.assert_close(dict(short.model.named_parameters())[name], parameter, rtol=1e-7, atol=1e-9)


def test_an_example_that_does_not_fit_alone_ends_the_run(tiny_model: Path, tmp_path: Path) -> None:
    manager = make_manager(tiny_model, tmp_path, "text-classification", torch.float32)
    fail_above(manager, 1, "CUDA out of memory.")
    with pytest.raises(ResourceError, match="예제 하나") as error:
        manager.train_window(manager.plan(Window(0, 0, np.arange(8))))
    assert "max_length" in error.value.remedy


def test_another_error_is_not_treated_as_out_of_memory(tiny_model: Path, tmp_path: Path) -> None:
    manager = make_manager(tiny_model, tmp_path, "text-classification", torch.float32)
    fail_above(manager, 1, "shape mismatch")
    with pytest.raises(RuntimeError, match="shape mismatch"):
        manager.train_window(manager.plan(Window(0, 0, np.arange(8))))


def test_a_window_that_is_not_finite_is_skipped_and_named(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = make_manager(tiny_model, tmp_path, "text-classification", torch.float32)
    loss_sum = manager.task.scores.loss_sum
    bad_row = manager.train_examples.fetch([5])[0]["input_ids"]

    def poisoned(logits: torch.Tensor, batch: Any) -> torch.Tensor:
        has_bad = any(ids[: len(bad_row)].tolist() == bad_row for ids in batch.inputs["input_ids"])
        return loss_sum(logits, batch) * (math.nan if has_bad else 1.0)

    manager.task.scores.loss_sum = poisoned
    before = {name: p.detach().clone() for name, p in manager.model.named_parameters()}
    window = Window(0, 0, np.arange(8))
    manager.ledger.count(manager.train_window(manager.plan(window)), window, 1.0)
    manager.ledger.read()
    assert manager.state.since_log.skipped == 1
    assert manager.state.since_log.items == 0
    assert "행: 6" in caplog.text  # rows count from 1
    assert all(torch.equal(before[name], p) for name, p in manager.model.named_parameters())
    for _ in range(4):
        manager.ledger.count(manager.train_window(manager.plan(window)), window, 1.0)
    with pytest.raises(ModelError, match="5스텝 연속"):
        manager.ledger.read()


def test_a_good_window_resets_the_count_of_bad_ones(tiny_model: Path, tmp_path: Path) -> None:
    manager = make_manager(tiny_model, tmp_path, "text-classification", torch.float32)
    manager.state.bad_steps, window = 4, Window(0, 0, np.arange(8))
    manager.ledger.count(manager.train_window(manager.plan(window)), window, 1.0)
    manager.ledger.read()
    assert manager.state.bad_steps == 0


@pytest.mark.parametrize("task", ["text-classification", "fill-mask", "text-generation"])
def test_no_step_waits_for_the_device(tiny_model: Path, tiny_causal: Path, tmp_path: Path, task: str) -> None:
    """A step runs no operator that waits for a GPU, such as reading a number or counting selected elements."""
    model = tiny_causal if task == "text-generation" else tiny_model
    manager = make_manager(model, tmp_path, task, torch.float32)
    ready = manager.plan(Window(0, 0, np.arange(16)))
    manager.train_window(ready)  # torch's optimizer makes its states in the first step
    with torch.profiler.profile() as profile:
        manager.ledger.count(manager.train_window(ready), ready.window, 1.0)
    waiting = {"aten::item", "aten::nonzero", "aten::is_nonzero"}
    callers = [event.cpu_parent for event in profile.events() if event.name in waiting]
    assert all(caller is not None and caller.name == "aten::_fused_adamw_" for caller in callers)  # a CPU's own way
    assert math.isfinite(manager.ledger.read())


def test_losses_are_read_in_their_own_precision() -> None:
    """Apple's GPUs have no float64, which losses were read in. (A gradient's norm is bfloat16 for such weights.)"""
    third, norm = torch.tensor([1 / 3]), torch.tensor(0.5, dtype=torch.bfloat16)
    results = [StepResult(third, 3, norm, 0.1, 7, 9, False)] * 2
    with _Without64Bits():
        read = sums_and_norms(results)
    assert read == [(third.tolist(), 0.5)] * 2
    assert sums_and_norms([]) == []


class _Without64Bits(TorchDispatchMode):
    """A device without float64, as Apple's GPUs are."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if getattr(found, "dtype", None) == torch.float64:
            raise TypeError("this device has no float64")
        return found


def test_waiting_for_the_device_counts_as_step_time(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that was handed to a device has taken no time yet; examples a second would be of the handing over."""
    manager = make_manager(tiny_model, tmp_path, "text-classification", torch.float32)
    window, now = Window(0, 0, np.arange(8)), [0.0]
    manager.ledger.count(manager.train_window(manager.plan(window)), window, 1.0)

    def read_after_a_while(results: Sequence[StepResult]) -> list[tuple[list[float], float]]:
        now[0] += 3.0
        return sums_and_norms(results)

    monkeypatch.setattr("finetuning.training.ledger.sums_and_norms", read_after_a_while)
    monkeypatch.setattr("finetuning.training.ledger.time.perf_counter", lambda: now[0])
    manager.ledger.read()
    assert manager.state.since_log.seconds == manager.state.this_epoch.seconds == 1.0 + 3.0


def test_the_last_step_is_saved_whatever_save_steps_says(tiny_model: Path, tmp_path: Path) -> None:
    manager = make_manager(tiny_model, tmp_path, "text-classification", torch.float32, epochs=1, save_steps=1000)
    manager.run()
    newest = manager.store.newest()
    assert newest is not None
    assert manager.store.load(newest).progress.step == manager.total_steps == 3


def test_a_checkpoint_is_there_before_an_evaluation_that_fails(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = make_manager(tiny_model, tmp_path, "text-classification", torch.float32)

    def fail(*_: Any) -> Any:
        raise RuntimeError("evaluation failed")

    monkeypatch.setattr(Evaluator, "validate", fail)
    with pytest.raises(RuntimeError, match="evaluation failed"):
        manager.run()
    newest = manager.store.newest()
    assert newest is not None
    again = make_manager(tiny_model, tmp_path, "text-classification", torch.float32)
    again.restore(manager.store.load(newest), keeps_best=True)
    monkeypatch.undo()
    state = again.run()  # makes up for the evaluation that it owes
    kinds = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [record["epoch"] for record in kinds if record["kind"] == "eval"] == [1, 2]
    assert state.step == again.total_steps


def test_a_nan_metric_is_never_the_best(tiny_model: Path, tmp_path: Path) -> None:
    manager = make_manager(tiny_model, tmp_path, "text-classification", torch.float32)
    assert manager.state.is_better(math.nan, greater_is_better=True)  # a run must leave a model
    manager.state.best_step = 5
    assert not manager.state.is_better(math.nan, greater_is_better=True)
    assert manager.state.is_better(0.1, greater_is_better=True)
    manager.state.best_metric = 0.1
    assert not manager.state.is_better(math.nan, greater_is_better=True)
    assert not manager.state.is_better(0.05, greater_is_better=True)


def test_a_resumed_run_restores_the_loss_scale(tiny_model: Path, tmp_path: Path) -> None:
    """fp16's scale grows every two steps here: the resumed run is at the same place of it."""

    def scaled(name: str) -> TrainingManager:
        (tmp_path / name).mkdir(exist_ok=True)
        manager = make_manager(tiny_model, tmp_path / name, "text-classification", torch.float32)
        manager.stepper.skips_on_device = False  # as in fp16
        manager.stepper.loss_scale = LossScale(is_enabled=True, value=8.0, growth_interval=2)
        return manager

    whole, halved = scaled("whole"), scaled("halved")
    whole.run()
    halved.stop_signal = lambda: 2 if halved.state.step >= 3 else None
    with pytest.raises(StopRequested):
        halved.run()
    newest = halved.store.newest()
    assert newest is not None
    resumed = scaled("halved")
    resumed.restore(resumed.store.load(newest), keeps_best=True)
    assert resumed.stepper.loss_scale.value == 16.0
    resumed.run()
    assert resumed.stepper.loss_scale == whole.stepper.loss_scale
    assert resumed.stepper.loss_scale.value == 64.0
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("eval_steps", "steps"), [(None, 9), (2, 6)])
def test_a_run_ends_after_patience_evaluations_without_improvement(
    tiny_model: Path, tmp_path: Path, eval_steps: int | None, steps: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Weights that hardly move never get better: after the first evaluation two more are waited for."""
    caplog.set_level("INFO")
    manager = make_manager(
        tiny_model, tmp_path, "text-classification", torch.float32, epochs=6, learning_rate=1e-12,
        early_stopping_patience=2, eval_steps=eval_steps,
    )  # fmt: skip
    state = manager.run()
    evaluations = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len([record for record in evaluations if record["kind"] == "eval"]) == 3
    assert state.best_step < state.step < manager.total_steps == 18
    assert "2번 연속으로 나아지지 않아" in caplog.text
    newest = manager.store.newest()
    assert newest is not None
    assert manager.store.load(newest).progress.step == state.step
    assert steps >= state.step


def test_a_run_that_saves_elsewhere_finds_its_best_model_anew(tiny_model: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    manager = make_manager(tiny_model, tmp_path / "first", "text-classification", torch.float32)
    manager.run()
    newest = manager.store.newest()
    assert newest is not None
    elsewhere = make_manager(tiny_model, tmp_path / "second", "text-classification", torch.float32)
    saved: list[int] = []
    elsewhere.best = BestModel(lambda *_: saved.append(elsewhere.state.step), elsewhere.store, elsewhere.runtime)
    elsewhere.restore(manager.store.load(newest), keeps_best=False)
    elsewhere.run()
    assert saved


def test_a_resumed_run_of_other_data_is_refused_without_hashes(tiny_model: Path, tmp_path: Path) -> None:
    manager = make_manager(tiny_model, tmp_path, "text-classification", torch.float32)
    manager.run()
    newest = manager.store.newest()
    assert newest is not None
    other = make_manager(tiny_model, tmp_path, "text-classification", torch.float32)
    other.fingerprint |= {"train 데이터의 내용": "0123456789abcdef" * 2}
    with pytest.raises(SettingsError) as error:
        other.restore(manager.store.load(newest), keeps_best=True)
    assert "train 데이터의 내용이 다릅니다" in str(error.value)
    assert "0123456789abcdef" not in str(error.value)
