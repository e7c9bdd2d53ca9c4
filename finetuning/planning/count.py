"""What a step allocates, counted by running it on tensors without data.

PyTorch's fake tensors have shapes, dtypes, devices and storages, and nothing in them: the task's own forward, loss
and backward run on them under the run's autocast, and the bytes of all storages that are alive are summed as they come
and go. So what is counted is what will be allocated, whatever the architecture: activations, gradients, autocast's
copies of the weights, temporaries.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from finetuning.ops.dense_attention import without_padding
from finetuning.planning.estimate import Count, Workload
from finetuning.planning.heap_replay import Event, heap_peak
from finetuning.training.optimizers import after_each_gradient

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def count_step(model: PreTrainedModel, workload: Workload, optimizer_in_backward: bool, temporaries: int) -> Count:
    """Forward, loss and backward of each micro-batch, and the optimizer's temporaries.

    temporaries: tensors of a parameter's size in float32 that its step makes. Where the optimizer steps in the backward
    pass, each gradient is dropped as it comes.
    """
    model.train()

    def step(parameter: torch.nn.Parameter) -> None:
        [torch.empty_like(parameter, dtype=torch.float32) for _ in range(temporaries)]

    def step_in_backward(parameter: torch.nn.Parameter) -> None:
        step(parameter)
        parameter.grad = None

    with FakeTensorMode(allow_non_fake_inputs=True):
        _make_fake(model, workload.device)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        live = _LiveBytes(model)
        with live:
            for counted in workload.steps:
                in_backward = optimizer_in_backward and counted.is_window
                for parameter in trained if not counted.is_window else ():
                    parameter.grad = torch.empty_like(parameter)
                hooks = after_each_gradient(model, step_in_backward) if in_backward else nullcontext()
                with hooks, workload.autocast(), without_padding(model, counted.batch.dense):
                    workload.task.scores.training_loss(model, counted.batch).backward()
                if not in_backward:
                    step(max(trained, key=torch.numel))
                model.zero_grad(set_to_none=True)
    return live.count(workload.device)


def count_evaluation(model: PreTrainedModel, workload: Workload) -> Count:
    """Forward and loss of one batch without gradients."""
    model.eval()
    with FakeTensorMode(allow_non_fake_inputs=True):
        _make_fake(model, workload.device)
        live = _LiveBytes(model)
        with live, torch.no_grad(), workload.autocast():
            workload.task.scores.loss_sum(workload.task.scores.forward(model, workload.evaluation), workload.evaluation)
    return live.count(workload.device)


def _make_fake(model: PreTrainedModel, device: torch.device) -> None:
    """Puts fake tensors of a device in the place of all parameters and buffers; what is tied stays tied."""
    made: dict[int, torch.Tensor] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
                replaced = torch.nn.Parameter(empty, requires_grad=parameter.requires_grad)
                module._parameters[name] = made.setdefault(id(parameter), replaced)  # type: ignore[assignment]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)


class _LiveBytes(TorchDispatchMode):
    """Sums the bytes of the storages alive that are made under it, and keeps the most that there were.

    Operators on the batch's own tensors alone compute their values, so that masks have as many positions as they will.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.vocabulary = getattr(model.config, "vocab_size", 0)
        self.sizes: dict[int, tuple[int, int, int]] = {
            tensor.untyped_storage()._cdata: (0, 0, -1) for tensor in (*model.parameters(), *model.buffers())
        }
        self.total = self.logits = 0
        self.peak = Count(0, 0, 0)
        self.events: list[Event] = []
        self._is_recorded = False  # by autograd, the operator that is under way
        self._made = itertools.count()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = tree_leaves((args, kwargs))
        is_fake = any(isinstance(leaf, FakeTensor) for leaf in given)
        needs_gradient = any(isinstance(leaf, torch.Tensor) and leaf.requires_grad for leaf in given)
        self._is_recorded = needs_gradient and torch.is_grad_enabled()
        if not is_fake:
            with unset_fake_temporarily():
                made = func(*args, **kwargs)
        else:
            if func in (torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default):
                args = (args[0], _positions(args[1]), *args[2:])
            made = func(*args, **kwargs)
        for leaf in tree_leaves(made):
            self.add(leaf)
        return made

    def count(self, device: torch.device) -> Count:
        """The peak; on a CPU with what the heap takes for it."""
        heap = heap_peak(self.events) if device.type == "cpu" else None
        return replace(self.peak, heap=max(heap or 0, self.peak.total))

    def add(self, tensor: Any) -> None:
        """Counts a tensor's storage until it is gone, unless it is counted already."""
        if not isinstance(tensor, torch.Tensor):
            return
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self.sizes:
            return
        is_logits = tensor.ndim > 1 and tensor.shape[-1] == self.vocabulary
        number = next(self._made)
        self.sizes[key] = (size, size if is_logits else 0, number)
        self.events.append(Event(number, size, self._is_recorded))
        self.total, self.logits = self.total + size, self.logits + self.sizes[key][1]
        if self.total > self.peak.total:
            self.peak = Count(self.total, self.logits, self.total)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        size, logits, number = self.sizes.pop(key)
        self.events.append(Event(number, -1, False))
        self.total, self.logits = self.total - size, self.logits - logits


def _positions(indices: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
    """Masks as the positions that they choose, whose number fake tensors could not tell."""
    found: list[torch.Tensor | None] = []
    for index in indices:
        if index is not None and index.dtype == torch.bool and not isinstance(index, FakeTensor):
            with unset_fake_temporarily():
                found.extend(index.nonzero().unbind(1))
        else:
            found.append(index)
    return found
