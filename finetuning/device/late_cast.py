"""Weights whose files have another dtype than the run: cast when they are read, and not while the files are loaded.

Tensors of files are memory-mapped and take no private memory until they are cast. A process that hands a model on
tensor by tensor so never holds a cast copy of all of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from finetuning.environment import with_variable

_ONE_BY_ONE = "HF_DEACTIVATE_ASYNC_LOAD"  # transformers casts in threads else, where a mode is not in force


class _Stored:
    """What a late cast and the tensors detached from it share."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


class LateCast(torch.Tensor):
    """A tensor that has the values of another in another dtype, and casts them whenever an operation reads them.

    The first operation that writes to it, or takes a view of it, makes it keep its cast values.

    Args:
        stored: The other tensor, or what such tensors share of it.
        dtype: The dtype that this one has.
    """

    stored: _Stored

    @staticmethod
    def __new__(cls, stored: torch.Tensor | _Stored, dtype: torch.dtype) -> LateCast:
        """Make a tensor of this dtype that has no storage of its own."""
        stored = stored if isinstance(stored, _Stored) else _Stored(stored)
        like = stored.tensor
        made: LateCast = torch.Tensor._make_wrapper_subclass(
            cls, like.shape, strides=like.stride(), dtype=dtype, device=like.device
        )
        made.stored = stored
        return made

    __torch_function__: ClassVar[Any] = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation on cast values."""
        if func is torch.ops.aten.detach.default:
            return cls(args[0].stored, args[0].dtype)
        if func is torch.ops.aten.copy_.default and not isinstance(args[0], cls):
            return func(args[0], args[1].stored.tensor, *args[2:])  # it casts without a copy between
        for place, argument in enumerate(func._schema.arguments[: len(args)]):
            if argument.alias_info is not None and isinstance(args[place], cls):
                args[place].stored.tensor = args[place].cast()
        plain = tree_map(lambda one: one.cast() if isinstance(one, cls) else one, (args, kwargs or {}))
        result = func(*plain[0], **plain[1])
        return args[0] if isinstance(args[0], cls) and result is plain[0][0] else result

    def cast(self) -> torch.Tensor:
        """Return the values in this tensor's dtype; what it keeps, where that has the dtype."""
        return self.stored.tensor.to(self.dtype)

    @property
    def data(self) -> torch.Tensor:
        """The tensor apart from autograd; assigning to it gives this one the values and the dtype of another."""
        return self.detach()

    @data.setter
    def data(self, new: torch.Tensor) -> None:
        torch.Tensor.data.__set__(self, new)  # type: ignore[attr-defined]
        self.stored = new.stored if isinstance(new, LateCast) else _Stored(new)

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        """Return a tensor of its own, cast."""
        copied = self.cast().clone()
        is_parameter = isinstance(self, torch.nn.Parameter)
        memo[id(self)] = torch.nn.Parameter(copied, self.requires_grad) if is_parameter else copied
        made: torch.Tensor = memo[id(self)]
        return made


def release(tensor: torch.Tensor) -> None:
    """Free the values of a tensor, which stays an object without any."""
    tensor.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device)


@contextmanager
def casting_late() -> Iterator[None]:
    """Let models that are loaded in the block keep their files' tensors, and cast them when they are read."""
    with with_variable(_ONE_BY_ONE, "1"), _CastingLate():
        yield


class _CastingLate(TorchFunctionMode):
    """Puts off the casts by which transformers reads tensors of files: `to` with a device and a dtype, by name."""

    def __torch_function__(self, func: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.to and kwargs.keys() == {"device", "dtype"} and len(args) == 1:
            tensor, dtype = args[0], kwargs["dtype"]
            if _can_wait(tensor, kwargs["device"], dtype):
                return LateCast(tensor, dtype)
        return func(*args, **kwargs)


def _can_wait(tensor: torch.Tensor, device: Any, dtype: torch.dtype | None) -> bool:
    """Return whether a cast is of a plain tensor from one floating-point dtype to another, both in the CPU's memory."""
    stays = device is None or torch.device(device).type == "cpu"
    is_float = tensor.is_floating_point() and dtype is not None and dtype.is_floating_point
    return stays and is_float and tensor.device.type == "cpu" and tensor.dtype != dtype and not tensor.requires_grad
