"""Out of memory at chosen points of a run: a smaller budget that is remembered, or an end with its state saved."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import re
import sys
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exceptions import ResourceError
from finetuning.config.ladder import remedies
from finetuning.config.schema import Settings
from finetuning.device.oom import is_out_of_memory
from finetuning.inference.evaluator import Evaluator
from finetuning.training.optimizers import allocate_states, make_optimizer
from finetuning.windows.order import Window
from memory_utils import MemoryManager
from tests.support.managers import fail_above, make_manager
from tests.support.runs import StopAfter, run_train
from training_manager import TrainingManager

CUDA = (
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 7.79 GiB of which 11 MiB is free."
)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(CUDA),
        RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions."),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
            "allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"
        ),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:115] data. DefaultCPUAllocator: not enough memory: you tried to allocate "
            "4294967296 bytes."
        ),
        RuntimeError("unable to mmap 536870912 bytes from file <model.safetensors>: Cannot allocate memory (12)"),
        MemoryError("Unable to allocate 7.45 GiB for an array with shape (1000000000,) and data type float64"),
        MemoryError("std::bad_alloc"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        RuntimeError("could not create a primitive"),
        RuntimeError("could not execute a primitive"),
        RuntimeError("can't start new thread"),
        ImportError("scipy/optimize/_core.so: failed to map segment from shared object"),
    ],
)
def test_out_of_memory_errors_are_recognised(error: BaseException) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("Expected a tensor in channels_last memory format"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        RuntimeError("unsupported operation: some elements of the input tensor refer to a single memory location."),
        ValueError("out of memory"),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        RuntimeError("could not create a primitive descriptor for the matmul primitive"),
        ImportError("cannot import name 'memory' from 'out'"),
    ],
)
def test_an_error_that_mentions_memory_is_not(error: BaseException) -> None:
    assert not is_out_of_memory(error)


def test_out_of_memory_on_this_machine_is_recognised() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 60)
    assert is_out_of_memory(error.value)


def test_only_settings_that_are_not_in_force_are_named() -> None:
    plain = " ".join(remedies(Settings(), "train"))
    assert plain.index("gradient_checkpointing") < plain.index("lora") < plain.index("max_length: 512")
    lean = Settings.model_validate(
        {"model": {"adapter": {"method": "lora"}}, "memory": {"gradient_checkpointing": True}}
    )
    helped = " ".join(remedies(lean, "train"))
    assert "gradient_checkpointing" not in helped
    assert "lora" not in helped
    assert not [text for text in remedies(Settings(), "use") if "training" in text or "checkpointing" in text]


@pytest.mark.skipif(sys.platform != "linux", reason="the heap is glibc's, and its size is read from /proc")
def test_the_heap_has_no_holes_after_out_of_memory() -> None:
    memory = MemoryManager(Settings(), torch.device("cpu"), 64)
    del_first = torch.empty(20 * 2**20, dtype=torch.uint8)  # glibc keeps blocks of such a size once one was freed
    del del_first
    memory.shrink(largest=64, examples=2)
    before = _addresses()
    blocks = [torch.empty(8 * 2**20, dtype=torch.uint8) for _ in range(8)]
    del blocks[:-1]  # the last one is above the others
    assert _addresses() - before < 2 * 8 * 2**20


def _addresses() -> int:
    """Bytes of addresses that this process has, in use or not."""
    found = re.search(r"VmSize:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


# --- the points where it happens ---


def fail_once(obj: Any, name: str, at: int, message: str = CUDA) -> None:
    """Makes a method run out of memory on its call number `at`, from 1, and work on the others."""
    whole, calls = getattr(obj, name), 0

    def failing(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise torch.OutOfMemoryError(message)
        return whole(*args, **kwargs)

    setattr(obj, name, failing)


def weights(manager: TrainingManager) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in manager.model.parameters()])


class _FailingBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: torch.Tensor) -> torch.Tensor:
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise torch.OutOfMemoryError(CUDA)


def test_a_run_whose_backward_runs_out_of_memory_gives_the_same_weights(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = make_manager(tiny_model, tmp_path / "plain", "text-classification", torch.float64)
    short = make_manager(tiny_model, tmp_path / "short", "text-classification", torch.float64)
    loss_sum, calls = short.task.scores.loss_sum, 0

    def failing(logits: torch.Tensor, batch: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        loss: torch.Tensor = loss_sum(logits, batch)
        return _FailingBackward.apply(loss) if calls == 2 else loss  # type: ignore[no-any-return]

    short.task.scores.loss_sum = failing  # type: ignore[method-assign]
    for manager in (plain, short):
        manager.store.folder.parent.mkdir(parents=True, exist_ok=True)
    with caplog.at_level(logging.WARNING):
        short.run()
    plain.run()
    assert sum("micro-batch" in record.message for record in caplog.records) == 1
    torch.testing.assert_close(weights(short), weights(plain), rtol=1e-7, atol=1e-9)
    newest = short.store.newest()
    assert newest is not None
    assert (
        short.store.load(newest).state["shrunk_token_budget"] == short.memory.token_budget < plain.memory.token_budget
    )


def test_a_run_ended_by_one_large_example_saves_its_last_complete_step(tiny_model: Path, tmp_path: Path) -> None:
    manager = make_manager(tiny_model, tmp_path, "text-classification", torch.float32)
    whole = manager.train_window
    after_two: list[torch.Tensor] = []

    def then_nothing_fits(window: Any) -> Any:
        if manager.state.step == 2:
            after_two.append(weights(manager))
            fail_above(manager, 1, CUDA)
        return whole(window)

    manager.train_window = then_nothing_fits  # type: ignore[method-assign]
    with pytest.raises(ResourceError, match="예제 하나") as error:
        manager.run()
    assert "스텝 2까지" in error.value.remedy
    newest = manager.store.newest()
    assert newest is not None
    again = make_manager(tiny_model, tmp_path, "text-classification", torch.float32)
    again.restore(manager.store.load(newest), keeps_best=True)
    assert torch.equal(weights(again), after_two[0])
    assert again.memory.token_budget < again.settings.data.batch_size * 64
    assert again.run().step == again.total_steps


def test_a_skipped_step_before_out_of_memory_does_not_prevent_saving(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its rows are looked for with the model, for which there is no memory then."""
    manager = make_manager(tiny_model, tmp_path, "text-classification", torch.float32)
    whole = manager.train_window

    def left_out_then_nothing_fits(window: Any) -> Any:
        result = whole(window)
        if manager.state.step < 2:
            return replace(result, sums=result.sums * math.nan)
        fail_above(manager, 1, CUDA)
        return whole(window)

    manager.train_window = left_out_then_nothing_fits  # type: ignore[method-assign]
    with pytest.raises(ResourceError, match="예제 하나"), caplog.at_level(logging.WARNING):
        manager.run()
    newest = manager.store.newest()
    assert newest is not None
    assert manager.store.load(newest).progress.step == 2
    assert sum("이 스텝을 건너뜁니다" in record.message for record in caplog.records) == 2


def test_out_of_memory_while_planning_windows_saves_the_state(tiny_model: Path, tmp_path: Path) -> None:
    manager = make_manager(tiny_model, tmp_path, "text-classification", torch.float32)
    fail_once(manager, "plan", at=2, message="CUDA error: out of memory")
    with pytest.raises(ResourceError, match="메모리가 부족합니다") as error:
        manager.run()
    assert "스텝 1까지" in error.value.remedy
    newest = manager.store.newest()
    assert newest is not None
    assert manager.store.load(newest).progress.step == 1


def test_an_evaluation_without_memory_saves_the_state(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = make_manager(tiny_model, tmp_path, "text-classification", torch.float32, eval_steps=2)

    def fail(*_: Any) -> Any:
        raise torch.OutOfMemoryError(CUDA)

    monkeypatch.setattr(Evaluator, "_predictions", fail)
    with pytest.raises(ResourceError, match="예제 하나"):
        manager.run()
    newest = manager.store.newest()
    assert newest is not None
    assert manager.store.load(newest).progress.step == 2


def test_an_optimizer_without_memory_for_its_states_changes_no_weight(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = make_manager(tiny_model, tmp_path, "text-classification", torch.float32)
    before = weights(manager)
    monkeypatch.setattr(torch, "zeros_like", torch.zeros_like)  # so that it is put back
    fail_once(torch, "zeros_like", at=9)
    with pytest.raises(ResourceError, match="옵티마이저의 상태"):
        manager.run()
    assert torch.equal(weights(manager), before)


def test_a_half_made_step_is_never_saved(tiny_model: Path, tmp_path: Path) -> None:
    manager = make_manager(tiny_model, tmp_path, "text-classification", torch.float32, save_steps=1)
    fail_once(manager.optimizer, "step", at=3)
    with pytest.raises(ResourceError, match="가중치를 업데이트하는 도중"):
        manager.run()
    newest = manager.store.newest()
    assert newest is not None
    assert manager.store.load(newest).progress.step == 2


def test_states_made_beforehand_are_those_of_the_first_step(tiny_model: Path) -> None:
    from transformers import AutoModel

    found = []
    for beforehand in (False, True):
        torch.manual_seed(0)
        model = AutoModel.from_pretrained(tiny_model)
        optimizer = make_optimizer(model, Settings().training, in_backward=False)
        if beforehand:
            allocate_states(optimizer)
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter) / 3
        optimizer.step()
        found.append([tensor for p in model.parameters() for tensor in (p, *optimizer.state[p].values())])
    assert all(torch.equal(first, second) for first, second in zip(*found, strict=True))


@pytest.mark.parametrize("command_task", ["text-generation", "text2text-generation"])
def test_generation_in_an_evaluation_is_cut_smaller(
    command_task: str,
    flags_for: Callable[[str], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from finetuning.tasks.registry import task_classes

    scorer, sizes = type(task_classes()[command_task](Settings()).scores), []
    whole = scorer.generate  # type: ignore[attr-defined]

    def limited(self: Any, model: Any, rows: Any, *rest: Any) -> Any:
        sizes.append(len(rows))
        if len(rows) > 1:
            raise torch.OutOfMemoryError(CUDA)
        return whole(self, model, rows, *rest)

    monkeypatch.setattr(scorer, "generate", limited)
    folder = tmp_path / "run" / "model"
    with caplog.at_level(logging.WARNING):
        run_train([*flags_for(command_task), "--epochs", "1", "--output_dir", str(folder)], StopAfter())
    assert sizes[0] > 1
    assert sizes.index(1) > 0
    assert all(size == 1 for size in sizes[sizes.index(1) :])  # the last evaluation, too, knows what does not fit
    told = sum("micro-batch" in record.message for record in caplog.records)
    assert told == sum(size > 1 for size in sizes)
    assert json.loads((folder / "summary.json").read_text(encoding="utf-8"))["steps"] > 0


def test_memory_is_given_back_once_the_tensors_of_the_failed_batch_are_gone(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error holds the frames that it went through, and these their tensors, so that a cache would not be emptied."""
    manager = make_manager(tiny_model, tmp_path, "text-classification", torch.float32)
    held: list[weakref.ref[torch.Tensor]] = []
    alive_at_clean_up: list[bool] = []
    forward, clean_up = manager.model.forward, manager.memory.clean_up

    def limited(*args: Any, **kwargs: Any) -> Any:
        activations = torch.ones(8)  # of the batch that does not fit
        if kwargs["input_ids"].numel() > 70:
            held.append(weakref.ref(activations))
            raise torch.OutOfMemoryError(CUDA)
        return forward(*args, **kwargs)

    def looking() -> None:
        alive_at_clean_up.append(held[-1]() is not None)
        clean_up()

    manager.model.forward = limited
    monkeypatch.setattr(manager.memory, "clean_up", looking)
    manager.evaluator.predict(manager.train_examples)
    manager.memory.token_budget = 10**6
    manager.train_window(manager.plan(Window(0, 0, np.arange(8))))
    assert len(alive_at_clean_up) >= 2
    assert not any(alive_at_clean_up)


def test_predictions_are_cut_smaller_and_stay_the_same(tiny_model: Path, tmp_path: Path) -> None:
    manager = make_manager(tiny_model, tmp_path, "text-classification", torch.float64)
    whole = manager.evaluator.predict(manager.train_examples)
    fail_above(manager, 70, CUDA)
    cut = manager.evaluator.predict(manager.train_examples)
    assert manager.memory.token_budget <= 35
    assert all(first == pytest.approx(second, rel=1e-6) for first, second in zip(whole, cut, strict=True))


def test_a_command_without_memory_ends_with_code_5(
    tiny_model: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import finetuning_app
    from finetuning.commands import plan

    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("finetuning.reporting.log.set_up_logging", lambda *_: None)
    monkeypatch.setattr(finetuning_app, "StopSignal", StopAfter)
    monkeypatch.setattr(plan, "run", fail)
    assert finetuning_app.main(["plan", "--model_name", str(tiny_model), "--dataset", str(reviews)]) == 5
    told = capsys.readouterr().err
    assert "메모리가 부족합니다" in told
    assert "Traceback" not in told


def test_a_model_whose_weights_do_not_fit_is_not_called_broken(
    tiny_model: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import transformers

    import finetuning_app

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("unable to mmap 269060552 bytes from file <model.safetensors>: Cannot allocate memory (12)")

    monkeypatch.setattr("finetuning.reporting.log.set_up_logging", lambda *_: None)
    monkeypatch.setattr(finetuning_app, "StopSignal", StopAfter)
    monkeypatch.setattr(transformers.AutoModelForSequenceClassification, "from_pretrained", fail)
    flags = ["--model_name", str(tiny_model), "--dataset", str(reviews), "--output_dir", str(tmp_path / "model")]
    assert finetuning_app.main(["train", *flags, "--set", f"data.dataset_cache_dir={tmp_path}"]) == 5
    told = capsys.readouterr().err
    assert "모델이 메모리에 들어가지 않습니다" in told
    assert "model.dtype: bfloat16" in told
    assert "gradient_checkpointing" not in told
