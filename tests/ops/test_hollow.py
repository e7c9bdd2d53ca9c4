"""Tensors without data against the same operators on tensors that have it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from finetuning.ops.dense_attention import without_padding
from finetuning.ops.hollow import Hollow, leaves_of, run_hollow
from finetuning.planning.workload import make_workload
from tests.support.planning import fitting_of_prepared, prepared_for

CPU = torch.device("cpu")


class _Recorder(TorchDispatchMode):
    """Writes down each operator with the shapes, strides and dtypes of its results."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Any, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = run_hollow(func, args, kwargs or {}) if Hollow in types else func(*args, **(kwargs or {}))
        tensors = [one for one in leaves_of(made) if isinstance(one, torch.Tensor)]
        self.seen.append((str(func), *((tuple(one.shape), one.stride(), one.dtype, one.device) for one in tensors)))
        return made


def hollow(tensor: torch.Tensor) -> Hollow:
    return Hollow.of(tensor.to("meta"), tensor.device)


@pytest.mark.parametrize("flags", [[], ["--no-mixed_precision"]], ids=["autocast", "float32"])
@pytest.mark.parametrize("task", ["text-classification", "text2text-generation"])
def test_a_step_without_data_runs_the_operators_of_one_with_data(
    task: str, flags: list[str], flags_for: Callable[[str], list[str]]
) -> None:
    prepared, tokenizer, length = prepared_for([*flags_for(task), *flags])
    fitting = fitting_of_prepared(prepared, tokenizer, length)
    workload = make_workload(fitting.source, fitting.settings, fitting.runtime, fitting.layout)
    model, batch = prepared.session.models.load_model(prepared.label_names), workload.steps[0].batch
    prepared.session.task.scores.fit_model(model, tokenizer)
    model.train()

    def seen() -> list[tuple[Any, ...]]:
        with _Recorder() as recorder, workload.autocast(), without_padding(model, batch.dense):
            workload.task.scores.training_loss(model, batch).backward()
        model.zero_grad(set_to_none=True)
        return recorder.seen

    seen()  # what a batch keeps, such as its mask, is made in the first step
    with_data = seen()
    for module in model.modules():
        for name, one in module._parameters.items():
            if one is not None:
                module._parameters[name] = torch.nn.Parameter(hollow(one.data))
        for name, one in module._buffers.items():
            if one is not None:
                module._buffers[name] = hollow(one)
    model.tie_weights()
    assert seen() == with_data


def test_views_share_their_storage_and_results_in_place_are_the_same_tensor() -> None:
    one = Hollow.of(torch.empty(4, 6, device="meta"), CPU)
    view = one.view(6, 4)
    assert view.within.untyped_storage()._cdata == one.within.untyped_storage()._cdata
    assert (one + 1).within.untyped_storage()._cdata != one.within.untyped_storage()._cdata
    assert one.add_(1) is one
    assert one.t_().shape == one.within.shape == (6, 4)


def test_a_device_is_kept_beside_numbers_and_changed_where_another_is_named() -> None:
    gpu = torch.device("cuda", 0)
    one, scalar = Hollow.of(torch.empty(2, 3, device="meta"), gpu), torch.tensor(2.0)
    assert {(one * scalar).device, (scalar * one).device, one.sum().device, torch.zeros_like(one).device} == {gpu}
    assert one.to(CPU).device == CPU
    assert one.new_zeros(3, device=CPU).device == CPU


def test_a_value_that_is_not_there_is_an_error() -> None:
    with pytest.raises((NotImplementedError, RuntimeError)):
        Hollow.of(torch.empty((), device="meta"), CPU).item()
