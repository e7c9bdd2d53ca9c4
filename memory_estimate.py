"""How much memory a run will need, counted by running one step of it on tensors without data.

PyTorch's fake tensors have shapes, dtypes, devices and storages, and nothing in them: the task's own forward, loss
and backward run on them under the run's autocast, and the bytes of all storages that are alive are summed as they come
and go. So what is counted is what will be allocated, whatever the architecture: activations, gradients, autocast's
copies of the weights, temporaries. Where an architecture does something that fake tensors cannot follow (a branch on
computed values, an operator without a shape rule), a formula stands in for the count.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from batching import batches_by_length, epoch_order, partition, share_of, window_of, windows_per_epoch
from packing import pack_window
from settings import Settings
from tasks.base import Batch, Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)
_SAMPLED_WINDOWS = 100


@dataclass(frozen=True)
class StateBytes:
    """Bytes that a trained parameter keeps through a run; frozen: those of one that is not trained."""

    weight: int
    gradient: int
    optimizer: int
    frozen: int


def state_bytes(settings: Settings) -> StateBytes:
    """What a parameter costs under the settings: float32 weights and gradients, AdamW's two moments in float32."""
    return StateBytes(weight=4, gradient=4, optimizer=8, frozen=4)


@dataclass(frozen=True)
class Estimate:
    """A run's memory at its peak, in bytes.

    logits: what has the width of the vocabulary; activations: all else, such as temporaries and autocast's copies of
    the weights; counted: whether they are a count, or a formula's.
    """

    parameters: int
    trained: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    counted: bool = True

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits


# --- which micro-batch is the largest ---


@dataclass(frozen=True)
class Cut:
    """A micro-batch as positions: of each row its examples; alone: whether it is the whole of its window."""

    rows: list[np.ndarray]
    alone: bool


def heaviest_cut(
    lengths: np.ndarray, seed: int, window_size: int, processes: int, max_length: int, token_budget: int, packs: bool
) -> Cut:
    """The micro-batch of most padded tokens among windows of the first epoch, the one of the longest text included.

    lengths: tokens of each example, int32. A hundred windows are looked at, evenly spaced.
    """
    order = epoch_order(len(lengths), seed, 0)
    windows = windows_per_epoch(len(lengths), window_size)
    longest = int(np.flatnonzero(order == int(lengths.argmax()))[0]) // window_size
    numbers = {longest, *np.linspace(0, windows - 1, min(windows, _SAMPLED_WINDOWS)).astype(int).tolist()}
    heaviest, most = Cut([], True), (-1, -1)
    for number in sorted(numbers):
        mine = share_of(window_of(order, window_size, 0, number), lengths, 0, processes)
        if packs:
            batches = pack_window(mine, lengths, max_length, token_budget)
        else:
            batches = [[np.array([index]) for index in cut] for cut in partition(mine, lengths, token_budget)]
        for rows in batches:
            width = max(int(lengths[row].sum()) for row in rows)
            if (len(rows) * width, width) > most:
                heaviest, most = Cut(rows, alone=len(batches) == 1), (len(rows) * width, width)
    return heaviest


def largest_evaluation_batch(lengths: np.ndarray, token_budget: int) -> np.ndarray:
    """The batch of most padded tokens in a pass without gradients."""
    return max(batches_by_length(lengths, token_budget), key=lambda cut: len(cut) * int(lengths[cut].max()))


def shortened(example: Mapping[str, Any], max_length: int) -> dict[str, Any]:
    """An example with what it has for each token cut to max_length: one of a run with a shorter max_length."""
    tokens = len(example["input_ids"])
    return {
        name: value[:max_length] if isinstance(value, list) and len(value) == tokens else value
        for name, value in example.items()
    }


# --- the count ---


@dataclass(frozen=True)
class Workload:
    """What of a run is counted: its largest micro-batch, and its largest batch without gradients, on their device.

    step_is_window: whether the step's window has no other micro-batch: else its gradients are there, from the one
    before, while activations are at their most; autocast: the context in which the run computes.
    """

    task: Task
    step: Batch
    step_is_window: bool
    evaluation: Batch
    autocast: Callable[[], AbstractContextManager[Any]]
    device: torch.device


def estimate_memory(
    model: PreTrainedModel, workload: Workload, settings: Settings, gradient_checkpointing: bool
) -> Estimate:
    """The peak over a step and a pass without gradients; the optimizer's states are there in full.

    model: on the meta device, as it will be trained; it is changed. Generation is not counted: its batches are halved
    where they must be.
    """
    parameters = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    each = state_bytes(settings)
    gradients = trained * each.gradient
    if gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    try:
        counts = [_count_step(model, workload), _count_evaluation(model, workload)]
    except Exception as error:  # what a library raises for what fake tensors cannot follow is of any kind
        _log.debug("활성값을 세지 못해 식으로 어림합니다: %s", error)
        counts = [_by_formula(model, workload.step, gradient_checkpointing, gradients)]
    most = max(counts, key=lambda count: count.total)
    return Estimate(
        parameters, trained,
        weights=trained * each.weight + (parameters - trained) * each.frozen,
        gradients=gradients, optimizer=trained * each.optimizer,
        activations=max(0, most.total - most.logits - gradients), logits=most.logits,
        counted=len(counts) == 2,
    )  # fmt: skip


@dataclass(frozen=True)
class _Count:
    """Bytes at a peak besides weights and optimizer: all (gradients included), and those of vocabulary width."""

    total: int
    logits: int


def _count_step(model: PreTrainedModel, workload: Workload) -> _Count:
    """Forward, loss and backward of one micro-batch."""
    model.train()
    with FakeTensorMode(allow_non_fake_inputs=True):
        _make_fake(model, workload.device)
        live = _LiveBytes(model)
        if not workload.step_is_window:
            for parameter in model.parameters():
                parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
                live.add(parameter.grad)
        with live, workload.autocast():
            loss = workload.task.loss_sum(workload.task.forward(model, workload.step), workload.step)
            loss.backward()
    model.zero_grad(set_to_none=True)
    return live.peak


def _count_evaluation(model: PreTrainedModel, workload: Workload) -> _Count:
    """Forward and loss of one batch without gradients."""
    model.eval()
    with FakeTensorMode(allow_non_fake_inputs=True):
        _make_fake(model, workload.device)
        live = _LiveBytes(model)
        with live, torch.no_grad(), workload.autocast():
            workload.task.loss_sum(workload.task.forward(model, workload.evaluation), workload.evaluation)
    return live.peak


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
        self.sizes: dict[int, tuple[int, int]] = {
            tensor.untyped_storage()._cdata: (0, 0) for tensor in (*model.parameters(), *model.buffers())
        }
        self.total = self.logits = 0
        self.peak = _Count(0, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        is_fake = any(isinstance(leaf, FakeTensor) for leaf in tree_leaves((args, kwargs)))
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

    def add(self, tensor: Any) -> None:
        """Counts a tensor's storage until it is gone, unless it is counted already."""
        if not isinstance(tensor, torch.Tensor):
            return
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self.sizes:
            return
        is_logits = tensor.ndim > 1 and tensor.shape[-1] == self.vocabulary
        self.sizes[key] = (size, size if is_logits else 0)
        self.total, self.logits = self.total + size, self.logits + self.sizes[key][1]
        if self.total > self.peak.total:
            self.peak = _Count(self.total, self.logits)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        size, logits = self.sizes.pop(key)
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


def _by_formula(model: PreTrainedModel, batch: Batch, gradient_checkpointing: bool, gradients: int) -> _Count:
    """Activations of a transformer in float32: 68 bytes a token, hidden unit and layer (Korthikanti et al. 2022).

    Attention's probabilities are left out, as fused attention leaves them. With checkpointing a layer keeps its input.
    """
    config, tokens = model.config.get_text_config(), batch.inputs["input_ids"].numel()
    hidden, layers = getattr(config, "hidden_size", 768), getattr(config, "num_hidden_layers", 12)
    layer = 68 * tokens * hidden
    activations = layer + layers * 4 * tokens * hidden if gradient_checkpointing else layer * layers
    has_logits = batch.labels is not None and batch.labels.shape == batch.inputs["input_ids"].shape
    logits = 12 * batch.items * config.vocab_size if has_logits else 0
    return _Count(gradients + activations + logits, logits)
