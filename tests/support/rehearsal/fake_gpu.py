"""A GPU that is not there: fake tensors on a device of torch's Python backend.

Every operator is checked for devices, dtypes and shapes, and nothing is computed. A tensor left on the CPU raises, and
so does whatever waits for a real GPU, unless the wait is meant. It shows neither kernels nor memory, speed or autocast.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from finetuning.device.runtime import Pinning, Runtime
from finetuning.types import Card
from tests.support.paths import ROOT

aten = torch.ops.aten
_WAITING = {
    aten._local_scalar_dense.default: "item",
    aten.nonzero.default: "nonzero",
    aten.masked_select.default: "masked_select",
    aten.equal.default: "equal",
    aten.unique_consecutive.default: "unique",
    aten._unique2.default: "unique",
    aten.repeat_interleave.Tensor: "repeat_interleave",
}
_BY_MASK = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)


class WaitsForTheDevice(Exception):
    """The host waits for the device where that is not meant."""


def make_device(name: str = "fakegpu") -> torch.device:
    """Register the device, once a process, and return it. It counts as unavailable: fake tensors alone may be on it."""
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(name)
    module: dict[str, Callable[..., Any]] = {
        "get_amp_supported_dtype": lambda: [torch.bfloat16, torch.float16], "is_available": lambda: False,
        "is_initialized": lambda: True, "current_device": lambda: 0, "device_count": lambda: 1,
        "_is_in_bad_fork": lambda: False, "manual_seed": lambda seed: None, "manual_seed_all": lambda seed: None,
    }  # fmt: skip
    for member, function in module.items():
        setattr(getattr(torch, name), member, function)
    return torch.device(f"{name}:0")


@dataclass(frozen=True)
class RehearsedRuntime(Runtime):
    """The runtime of a CUDA device, for the fake one: it takes the branches of CUDA."""

    pinning: Pinning = field(
        default_factory=lambda: Pinning(works=False), kw_only=True
    )  # there is no page-locked memory

    @property
    def is_cuda(self) -> bool:
        """Whether the branches of CUDA are taken."""
        return True

    @property
    def card(self) -> Card:
        """The card by which attention's kernels are chosen."""
        return Card((8, 0), self.precision, has_triton=False)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return no autocast: torch has no rules for the fake device."""
        return nullcontext()

    def wait_for_device(self) -> None:
        """Do nothing: only `logging.profile` waits."""


def runtime_on(device: torch.device) -> Runtime:
    """Return the runtime of one process in float32 on the device."""
    accelerator: Any = SimpleNamespace(
        device=device, mixed_precision="no", process_index=0, num_processes=1, is_main_process=True
    )
    return RehearsedRuntime(accelerator)


def moved(model: Any, device: torch.device) -> Any:
    """Replace parameters and buffers, in place, by fake ones on the device; tied ones stay tied."""
    made: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
                replaced = torch.nn.Parameter(empty, requires_grad=parameter.requires_grad)
                module._parameters[name] = made.setdefault(id(parameter), replaced)
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)
    return model


@contextmanager
def rehearsal(device: torch.device, meant: Mapping[str, str]) -> Iterator[list[str]]:
    """Make tensors fake within the block; real ones that come from outside are taken as fake, too.

    Args:
        device: The fake device.
        meant: Places that may wait, as `path: function`, each with the reason.

    Yields:
        The places that waited, in order.
    """
    watch = _Watch(device, meant)
    with FakeTensorMode(allow_non_fake_inputs=True), watch:
        yield watch.waits


class _Watch(TorchDispatchMode):
    """Raises where the host waits for the device, and answers with ones where that is meant."""

    def __init__(self, device: torch.device, meant: Mapping[str, str]) -> None:
        super().__init__()
        self.device, self.meant = device, meant
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        what = self._what_waits(func, args, kwargs)
        if what is None:
            return func(*args, **kwargs)
        place = _place()
        if place not in self.meant:
            raise WaitsForTheDevice(f"{place}: {what}")
        self.waits.append(place)
        return self._answer(func, args)

    def _what_waits(self, func: Any, args: Any, kwargs: Any) -> str | None:
        if func is not aten._to_copy.default and func not in _BY_MASK and func not in _WAITING:
            return None
        if not any(isinstance(leaf, torch.Tensor) and leaf.device == self.device for leaf in tree_leaves(args)):
            return None
        if func is aten._to_copy.default:
            to_host = kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cpu"
            return "copy to the host" if to_host and not kwargs.get("non_blocking") else None
        if func in _BY_MASK:
            is_mask = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
            return "boolean mask" if is_mask else None
        return _WAITING.get(func)

    def _answer(self, func: Any, args: Any) -> Any:
        """What the host reads: ones."""
        tensor = args[0]
        if func is aten._to_copy.default:
            with unset_fake_temporarily():
                return torch.ones(tuple(int(size) for size in tensor.shape), dtype=tensor.dtype)
        if func is aten._local_scalar_dense.default:
            return True if tensor.dtype == torch.bool else (1.0 if tensor.dtype.is_floating_point else 1)
        raise WaitsForTheDevice(f"{_place()}: {func} has no answer")


def _place() -> str:
    """The innermost function of the program or of transformers on the stack, as `path: function`."""
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        is_ours = path.is_relative_to(ROOT) and "site-packages" not in path.parts
        if is_ours and not path.is_relative_to(ROOT / "tests"):
            return f"{path.relative_to(ROOT)}: {frame.f_code.co_name}"
        if "transformers" in path.parts:  # what a library waits for is named by the library
            return f"transformers/{path.name}: {frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return "?"


def catches() -> dict[str, str]:
    """What right and wrong code leads to: "two devices", the name of another error, or "" for none."""
    device, found = make_device(), dict[str, str]()
    with rehearsal(device, meant={}):
        weight, stray = torch.randn(4, 4, device=device, requires_grad=True), torch.randn(4, 4)
        loss = (weight @ weight).sum()
        loss.backward()
        attempts: dict[str, Callable[[], object]] = {
            "right": lambda: weight @ weight, "stray tensor": lambda: weight @ stray, "item": loss.item,
            "bool": lambda: bool(loss > 0), "nonzero": lambda: (weight > 0).nonzero(),
            "mask": lambda: weight[weight > 0], "copy to the host": lambda: weight.detach().cpu(),
            "tolist": lambda: weight.detach().tolist(),
        }  # fmt: skip
        for what, attempt in attempts.items():
            found[what] = ""
            try:
                attempt()
            except Exception as error:
                mixed = "two devices" in str(error) or "two different devices" in str(error)  # torch before 2.13
                found[what] = "two devices" if mixed else type(error).__name__
    return found


if __name__ == "__main__":
    print(json.dumps(catches()))
