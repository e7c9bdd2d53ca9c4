"""A model without its values: handed to other processes, and filled there part by part with the main process's."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from finetuning.device.late_cast import release

if TYPE_CHECKING:
    from finetuning.device.runtime import Runtime


def outline_of(model: torch.nn.Module) -> bytes:
    """Pickle a model with its parameters and buffers on the meta device; tied ones stay tied."""
    file = io.BytesIO()
    _WithoutValues(file, model).dump(model)
    return file.getvalue()


class _WithoutValues(pickle.Pickler):
    def __init__(self, file: io.BytesIO, model: torch.nn.Module) -> None:
        super().__init__(file)
        self._left_out = {id(tensor) for _, tensor in _named_tensors(model)}

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor) and id(value) in self._left_out:
            is_parameter = isinstance(value, torch.nn.Parameter)
            return _on_meta, (tuple(value.shape), value.dtype, is_parameter, value.requires_grad)
        return NotImplemented


def _on_meta(shape: tuple[int, ...], dtype: torch.dtype, is_parameter: bool, is_trained: bool) -> torch.Tensor:
    tensor = torch.empty(shape, dtype=dtype, device="meta")
    return torch.nn.Parameter(tensor, requires_grad=is_trained) if is_parameter else tensor


def _named_tensors(model: torch.nn.Module) -> Iterable[tuple[str, torch.Tensor]]:
    """Return the parameters, buffers (persistent or not) and scales, tied ones by their first name alone."""
    scales = (
        (f"{name}.{place}.{key}", tensor)
        for name, module in model.named_modules()
        for place, named in enumerate(_scales(module))
        for key, tensor in named.items()
        if isinstance(tensor, torch.Tensor)
    )
    return (*model.named_parameters(), *model.named_buffers(), *scales)


def _scales(module: torch.nn.Module) -> Iterator[dict[str, Any]]:
    """Yield the registries of what a layer's 4-bit weight is read by: its scales, and the scales of these."""
    state = getattr(module, "quant_state", None)
    while state is not None:
        yield vars(state)
        state = state.state2


class Values:
    """The values of a model in the main process, which the processes receive part by part.

    Args:
        outline: The model on the meta device, the same in every process.
        whole: The model in the main process, which is empty when all is received; None in the others.
        runtime: The processes and their device.
    """

    def __init__(self, outline: torch.nn.Module, whole: torch.nn.Module | None, runtime: Runtime) -> None:
        self._outlines = {id(tensor): (name, tensor) for name, tensor in _named_tensors(outline)}
        self._whole = {} if whole is None else dict(_named_tensors(whole))
        self._runtime = runtime
        self._received: dict[int, torch.Tensor] = {}

    def fill(self, part: torch.nn.Module) -> None:
        """Put a part of the outline on the device, with its values. All processes fill the same parts in one order."""
        for module in part.modules():
            registries: tuple[dict[str, Any], ...] = (
                module._parameters, module._buffers, vars(module), *_scales(module)
            )  # fmt: skip
            for named in registries:
                for key, tensor in named.items():
                    if isinstance(tensor, torch.Tensor) and id(tensor) in self._outlines:
                        named[key] = self._value_of(tensor)
        # parameters of a part are divided now, and what is whole of them here has to go
        self._received = {key: one for key, one in self._received.items() if not isinstance(one, torch.nn.Parameter)}

    def _value_of(self, outline: torch.Tensor) -> torch.Tensor:
        if id(outline) not in self._received:
            value = torch.empty(outline.shape, dtype=outline.dtype, device=self._runtime.device)
            if self._runtime.is_main:
                own = self._whole[self._outlines[id(outline)][0]]
                value.copy_(own.detach())
                release(own)
            dist.broadcast(value, src=0)
            is_parameter = isinstance(outline, torch.nn.Parameter)
            self._received[id(outline)] = (
                torch.nn.Parameter(value, requires_grad=outline.requires_grad) if is_parameter else value
            )
        return self._received[id(outline)]
