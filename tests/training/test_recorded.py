"""Recorded passes: the run of passes that are not recorded, to the bit, and none where recording fails."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from finetuning.config.schema import Settings
from finetuning.tasks.registry import find_task
from finetuning.training import step
from finetuning.training.recorded import RecordedPasses, are_recorded
from finetuning.types import Batch, Lists
from finetuning.windows import layouts
from tests.support.runs import StopAfter, check_resumed_is_whole, losses, run_train

Work = Callable[[], torch.Tensor]


class Again:
    """Records work by keeping it: what a CUDA graph repeats is computed anew, from the same tensors."""

    def __init__(self, room: bool = True, factor: float = 1.0, waits: bool = False) -> None:
        self.room, self.factor, self.waits = room, factor, waits
        self.recorded = self.repeated = 0

    def has_room(self) -> bool:
        return self.room

    @contextmanager
    def without_waits(self) -> Iterator[None]:
        yield
        if self.waits:
            raise RuntimeError("called a synchronizing CUDA operation")

    def record(self, work: Work) -> tuple[Callable[[], object], torch.Tensor]:
        self.recorded += 1
        result = torch.zeros(1)

        def repeat() -> None:
            self.repeated += 1
            result.copy_(work() * self.factor)

        return repeat, result


def batch_of(values: list[float], rows: int = 2) -> Batch:
    inputs = {"input_ids": torch.tensor(values).repeat(rows, 1)}
    return Batch(inputs, labels=None, items=rows, tokens=len(values) * rows)


class Line:
    """Two weights, of which the second is used where `with_second` says, and the gradient of their sum."""

    def __init__(self, recorder: Again, with_second: Callable[[Batch], bool] = lambda _: True) -> None:
        self.weights = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))]
        self.with_second = with_second
        self.passes = RecordedPasses(self.weights, self.run, recorder)

    def run(self, batches: list[Batch], counts: Any) -> torch.Tensor:
        (batch,) = batches
        used = self.weights if self.with_second(batch) else self.weights[:1]
        sizes = batch.lists.sizes if batch.lists is not None else (len(batch.inputs["input_ids"]),)
        rows = batch.inputs["input_ids"].split(sizes)
        loss = sum((one * row).sum() ** 2 for one in used for row in rows) / counts[0]
        assert isinstance(loss, torch.Tensor)
        loss.backward()
        return loss.detach().reshape(1)

    def step(self, batch: Batch, count: float = 2.0) -> tuple[float, list[torch.Tensor | None]]:
        """The sums and the gradients of a window, which are dropped as an optimizer does."""
        sums = self.passes.sums(batch, (count,), 1.0)
        gradients = [None if one.grad is None else one.grad.clone() for one in self.weights]
        for one in self.weights:
            one.grad = None
        return float(sums), gradients


def assert_same(line: Line, batch: Batch, count: float = 2.0) -> None:
    plain = Line(Again(room=False), line.with_second)
    sums, gradients = line.step(batch, count)
    expected_sums, expected = plain.step(batch, count)
    assert sums == expected_sums
    for one, other in zip(gradients, expected, strict=True):
        assert (one is None) == (other is None) and (one is None or other is None or torch.equal(one, other))


def test_what_comes_back_is_recorded_once_and_repeated() -> None:
    recorder = Again()
    line = Line(recorder)
    for number in range(4):
        assert_same(line, batch_of([1.0, 2.0, float(number)]))
        assert_same(line, batch_of([3.0, float(number), 1.0], rows=3), count=3.0)
    assert recorder.recorded == 2
    assert_same(line, batch_of([1.0, 2.0, 3.0]), count=5.0)  # the count is a number of the recorded work
    assert recorder.recorded == 2


def test_weights_that_moved_are_recorded_anew() -> None:
    recorder = Again()
    line = Line(recorder)
    for _ in range(3):
        line.step(batch_of([1.0, 2.0, 3.0]))
    line.weights[0].data = torch.ones(3)
    for _ in range(2):
        assert_same(line, batch_of([1.0, 2.0, 3.0]))
    assert recorder.recorded == 2


@pytest.mark.parametrize("recorder", [Again(room=False), Again(waits=True), Again(factor=2.0)])
def test_passes_run_as_they_are_where_they_cannot_be_recorded(recorder: Again) -> None:
    line = Line(recorder)
    for number in range(4):
        assert_same(line, batch_of([1.0, 2.0, float(number)]))
    assert line.passes.is_off == recorder.room
    if line.passes.is_off:
        assert not line.passes.forget()  # no gradients are kept for recordings that there will not be


def test_a_pass_with_other_gradients_ends_the_recordings() -> None:
    line = Line(Again(), with_second=lambda batch: len(batch.inputs["input_ids"]) == 3)
    for rows in (2, 2, 2, 3, 2, 3):
        assert_same(line, batch_of([1.0, 2.0, 3.0], rows))
    assert line.passes.is_off


def test_what_the_host_knows_of_a_batch_belongs_to_its_shape() -> None:
    """A recording splits rows as they were split when it was made."""
    line = Line(Again())
    for sizes in ((1, 3), (1, 3), (2, 2), (1, 3), (2, 2), (2, 2), (1, 3)):
        lists = Lists(sizes, owners=torch.zeros(4, dtype=torch.long))
        assert_same(line, replace(batch_of([1.0, 2.0, 3.0], rows=4), lists=lists))
    assert len(line.passes) == 2


def test_a_step_that_is_not_finite_says_nothing() -> None:
    line = Line(Again())
    for value in (1.0, math.inf, 1.0, 2.0):
        batch = batch_of([1.0, 2.0, value])
        assert_same(line, batch) if math.isfinite(value) else line.step(batch)
    assert not line.passes.is_off and len(line.passes) == 1


def test_windows_of_several_micro_batches_add_to_the_same_gradients() -> None:
    line, batch = Line(Again()), batch_of([1.0, 2.0, 3.0])
    line.step(batch)
    line.passes.begin()
    kept = [one.grad for one in line.weights]
    for _ in range(2):
        line.run([batch], (2.0,))
    assert all(one.grad is gradient for one, gradient in zip(line.weights, kept, strict=True))
    whole = [one.grad.clone() for one in line.weights if one.grad is not None]
    _, once = line.step(batch)
    assert all(torch.equal(one, 2 * other) for one, other in zip(whole, once, strict=True) if other is not None)


def test_a_new_loss_scale_makes_room_for_new_recordings() -> None:
    line, batch = Line(Again()), batch_of([1.0, 2.0, 3.0])
    for scale in (1.0, 1.0, 2.0):
        line.passes.sums(batch, (2.0,), scale)
        for one in line.weights:
            one.grad = None
    assert len(line.passes) == 1


def test_passes_whose_loss_is_of_places_are_left_as_they_are() -> None:
    recorder = Again()
    line = Line(recorder)
    for _ in range(4):
        assert_same(line, replace(batch_of([1.0, 2.0, 3.0]), places=torch.tensor([0, 2])))
    assert recorder.recorded == 0


def test_memory_of_recordings_can_be_had_back() -> None:
    line = Line(Again())
    for _ in range(3):
        line.step(batch_of([1.0, 2.0, 3.0]))
    assert line.passes.forget() and not line.passes.forget()
    assert_same(line, batch_of([1.0, 2.0, 3.0]))


@pytest.mark.parametrize("task", ["text-classification", pytest.param("text-regression", marks=pytest.mark.soak)])
def test_a_run_whose_passes_are_recorded(
    task: str, flags_for: Callable[[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its losses are those of the run without recordings, and of the run in padded rows; it is resumed as any run."""
    recorders = list[Again]()

    def recorder(_device: torch.device) -> Again:
        recorders.append(Again())
        return recorders[-1]

    flags = [*flags_for(task), "--set", "logging.log_steps=1"]
    monkeypatch.setattr(layouts, "Grouped", lambda *settings: layouts.Filled(*settings[:-1]))  # as on a GPU
    monkeypatch.setattr(step, "CudaGraphs", recorder)
    monkeypatch.setattr(step, "are_recorded", lambda settings, *_: settings.training.cuda_graphs)
    run_train([*flags, "--output_dir", str(tmp_path / "plain"), "--set", "training.cuda_graphs=false"], StopAfter())
    assert not recorders
    check_resumed_is_whole(flags, StopAfter(looks=3), tmp_path)
    assert losses(tmp_path / "whole" / "model") == losses(tmp_path / "plain")
    assert sum(one.repeated for one in recorders) > 0


@pytest.mark.parametrize(
    "settings",
    [
        {"training": {"cuda_graphs": False}},
        {"training": {"torch_compile": True}},
        {"memory": {"gradient_checkpointing": True}},
        {"memory": {"optimizer_in_backward": True}},
        {"logging": {"profile": True}},
    ],
)
def test_passes_are_recorded_where_the_host_has_no_part_in_them(settings: dict[str, Any]) -> None:
    def found(more: dict[str, Any], layout: type[layouts.Layout] = layouts.Filled, **card: Any) -> bool:
        runtime: Any = SimpleNamespace(**{"is_cuda": True, "processes": 1, **card})
        whole = Settings.model_validate({"model": {"task": "text-classification"}, **more})
        return are_recorded(whole, find_task(whole), layout(0, 64), runtime)

    assert found({})
    assert not found(settings)
    assert not found({}, layouts.Dense) and not found({}, is_cuda=False) and not found({}, processes=2)
