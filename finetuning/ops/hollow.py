"""Tensors without data, with the shape, dtype, device and storage of those that have it.

Operators run on the tensors of the meta device that lie within, under the autocast and the autograd of the device that
is stated. torch's own fake tensors do the same; they bring in the compiler and its symbols, which take a second to
import, and ask Python for the device of every tensor that an operator reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._mode_utils import no_dispatch

_META = torch.device("meta")


class Hollow(torch.Tensor):
    """A tensor without data.

    Attributes:
        within: The tensor on the meta device. Views of one tensor share its storage.
    """

    within: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def of(cls, within: torch.Tensor, device: torch.device) -> Hollow:
        """Make one of a tensor on the meta device; device: the one that it states."""
        made: Hollow = torch.Tensor._make_wrapper_subclass(
            cls, within.size(), strides=within.stride(), storage_offset=within.storage_offset(), dtype=within.dtype,
            device=device,
        )  # fmt: skip
        made.within = within
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operator without data."""
        return run_hollow(func, args, kwargs or {})


def run_hollow(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operator, some of whose arguments are hollow; those that have data are taken as hollow, too.

    Args:
        func: The operator.
        args: Its arguments.
        kwargs: Its arguments by name.

    Returns:
        What it returns, hollow on the device of the arguments, or on that which is named.

    Raises:
        NotImplementedError: The result depends on data.
    """
    hollow = [leaf for leaf in leaves_of((args, tuple(kwargs.values()))) if isinstance(leaf, Hollow)]
    device = kwargs.get("device") or next((one.device for one in hollow if one.ndim), hollow[0].device)
    owners = {id(one.within): one for one in hollow}
    made = func(*_mapped(args, _inside), **{name: _mapped(value, _inside) for name, value in kwargs.items()})
    if torch.Tag.inplace_view in func.tags:
        with no_dispatch():  # the shape that is stated outside changes, too
            func(*args, **kwargs)

    def outside(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return owners[id(value)] if id(value) in owners else Hollow.of(value, device)

    return _mapped(made, outside)


def leaves_of(value: Any) -> Iterator[Any]:
    """Yield what lies in lists and tuples, at any depth."""
    if isinstance(value, list | tuple):
        for one in value:
            yield from leaves_of(one)
    else:
        yield value


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """Change what lies in lists and tuples, at any depth."""
    if isinstance(value, list | tuple):
        return type(value)([_mapped(one, change) for one in value])
    return change(value)


def _inside(value: Any) -> Any:
    if isinstance(value, Hollow):
        return value.within
    if isinstance(value, torch.Tensor):
        return torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device=_META)
    return _META if isinstance(value, torch.device) else value
