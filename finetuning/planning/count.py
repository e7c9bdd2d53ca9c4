"""Count the memory that a step allocates, by running it on tensors without data.

Hollow tensors have shapes, dtypes, devices and storages, but no data. The task's forward pass, loss and backward pass
run on them under the run's autocast, and the bytes of all live storages are summed. The count therefore covers
everything that a run allocates, for any architecture: activations, gradients, autocast's copies of the weights,
temporaries.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from finetuning.ops.dense_attention import without_padding
from finetuning.ops.head_gradient import LaterGradient
from finetuning.ops.hollow import Hollow, leaves_of, run_hollow
from finetuning.ops.shared_casts import SharedCasts, linear_layers
from finetuning.ops.weight_copies import WeightCopies
from finetuning.planning.types import Count, Workload
from finetuning.tasks.vocabulary import late_head_of
from finetuning.training.backward_step import after_each_gradient

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def count_step(model: PreTrainedModel, workload: Workload, in_backward: bool, temporaries: Mapping[str, int]) -> Count:
    """Count forward, loss and backward of each micro-batch, and the optimizer's temporaries.

    Args:
        model: On the meta device; its parameters are replaced by hollow ones.
        workload: The micro-batches.
        in_backward: Whether the optimizer steps inside the backward pass and drops each gradient at once.
        temporaries: By a trained parameter's name, float32 numbers that its step allocates.

    Returns:
        The bytes alive at the peak.
    """
    model.train()
    allocated: dict[torch.nn.Parameter, int] = {}

    def step(parameter: torch.nn.Parameter) -> None:
        parameter.new_empty(allocated[parameter], dtype=torch.float32)

    def step_in_backward(parameter: torch.nn.Parameter) -> None:
        step(parameter)
        parameter.grad = None

    _make_hollow(model, workload.device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    allocated |= {parameter: temporaries[name] for name, parameter in model.named_parameters() if name in temporaries}
    live = _LiveBytes(model)
    is_copied = workload.device.type != "cpu" and not in_backward
    copies = WeightCopies(linear_layers(model) if is_copied else [])
    casts = SharedCasts(model, copies.of) if is_copied else None
    head = late_head_of(model) if workload.device.type == "cpu" and not in_backward else None
    later = LaterGradient(head) if head is not None else None
    with live:
        for counted in workload.steps:
            drops_gradients = in_backward and counted.is_window
            for parameter in trained if not counted.is_window else ():
                parameter.grad = torch.empty_like(parameter)
            hooks = after_each_gradient(model, step_in_backward) if drops_gradients else nullcontext()
            replaced = [part.in_use() for part in (copies, casts, later) if part is not None]
            with ExitStack() as stack:
                for context in (hooks, workload.autocast(), *replaced, without_padding(model, counted.batch.dense)):
                    stack.enter_context(context)
                workload.task.scores.training_loss(model, counted.batch).backward()
                for part in (copies, later):
                    if part is not None:
                        part.add()
            if not drops_gradients:
                step(max(trained, key=lambda parameter: allocated[parameter]))
            model.zero_grad(set_to_none=True)
    return live.peak


def count_evaluation(model: PreTrainedModel, workload: Workload) -> Count:
    """Count forward and loss of one batch without gradients; model: as for count_step."""
    model.eval()
    _make_hollow(model, workload.device)
    live, scores = _LiveBytes(model), workload.task.scores
    with live, torch.no_grad(), workload.autocast():
        scores.loss_sum(scores.forward(model, workload.evaluation), workload.evaluation)
    return live.peak


def _make_hollow(model: PreTrainedModel, device: torch.device) -> None:
    """Replace all parameters and buffers by hollow tensors on a device. Tied parameters stay tied."""
    device = torch.empty(0, device=device).device  # with its number, which a GPU's tensors have

    def hollow(tensor: torch.Tensor) -> Hollow:
        return Hollow.of(torch.empty(tensor.shape, dtype=tensor.dtype, device="meta"), device)

    made: dict[int, torch.Tensor] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                replaced = torch.nn.Parameter(hollow(parameter), requires_grad=parameter.requires_grad)
                module._parameters[name] = made.setdefault(id(parameter), replaced)  # type: ignore[assignment]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = hollow(buffer)


class _LiveBytes(TorchDispatchMode):
    """Sums the bytes of the live storages that are made under this mode, and keeps the peak.

    Operators without hollow arguments, such as those on the batch, compute values, so that the number of positions that
    a mask selects is known.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.vocabulary = getattr(model.config.get_text_config(), "vocab_size", 0)
        self.sizes: dict[int, tuple[int, int]] = {  # (bytes, bytes of logits) by storage; those of the model count 0
            _storage(tensor)._cdata: (0, 0) for tensor in (*model.parameters(), *model.buffers())
        }
        self.total = self.logits = 0
        self.peak = Count(0, 0)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else the compiler is imported to be kept away from what is dispatched

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default):
            args = (args[0], _positions(args[1]), *args[2:])
        made = run_hollow(func, args, kwargs) if Hollow in types else func(*args, **kwargs)
        for leaf in leaves_of(made):
            self.add(leaf)
        return made

    def add(self, tensor: Any) -> None:
        """Count a tensor's storage until it is freed, unless it is counted already."""
        if not isinstance(tensor, torch.Tensor):
            return
        storage = _storage(tensor)
        key, size = storage._cdata, storage.nbytes()
        if key in self.sizes:
            return
        is_logits = tensor.ndim > 1 and tensor.shape[-1] == self.vocabulary
        self.sizes[key] = (size, size if is_logits else 0)
        self.total, self.logits = self.total + size, self.logits + self.sizes[key][1]
        if self.total > self.peak.total:
            self.peak = Count(self.total, self.logits)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        size, logits = self.sizes.pop(key)
        self.total, self.logits = self.total - size, self.logits - logits


def _storage(tensor: torch.Tensor) -> torch.UntypedStorage:
    return (tensor.within if isinstance(tensor, Hollow) else tensor).untyped_storage()


def _positions(indices: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
    """Replace boolean masks by the positions that they select; hollow tensors do not know how many those are."""
    found: list[torch.Tensor | None] = []
    for index in indices:
        if index is not None and index.dtype == torch.bool and not isinstance(index, Hollow):
            found.extend(index.nonzero().unbind(1))
        else:
            found.append(index)
    return found
