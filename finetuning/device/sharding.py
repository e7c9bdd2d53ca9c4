"""Sharding by torch's FSDP2: the processes divide a model's weights, gradients and optimizer states among them.

A block's weights are gathered when it runs and freed behind it; its gradients are summed and divided after the last
backward pass of a window. Source: Zhao et al. 2023; torchtitan's use of `fully_shard`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from finetuning.device.clipping import clipping_factor

if TYPE_CHECKING:
    from finetuning.device.runtime import Runtime


@dataclass(frozen=True)
class Shards:
    """This process's shards of a model.

    Optimizers step the local shards, which are plain tensors, so nothing in a step but the gathering of weights and the
    reduction of gradients knows of the other processes.

    Attributes:
        model: The sharded model.
        mesh: The processes that divide it: (shards,), or (copies, shards).
        local: Local shard of each trained parameter, by the sharded parameter.
    """

    model: FSDPModule
    mesh: DeviceMesh
    local: dict[torch.nn.Parameter, torch.nn.Parameter] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """Which of the shards this process has, from 0. Copies of a shard have the same number."""
        return self.mesh.get_local_rank(self.mesh.ndim - 1)

    def sum_gradients(self, is_last: bool) -> None:
        """Set whether the next backward pass is the window's last one, after which the gradients are summed."""
        self.model.set_requires_gradient_sync(is_last)

    def clip(self, limit: float | None) -> torch.Tensor:
        """Give the gradients to the local shards, clipped; return the norm of the whole gradient before.

        Args:
            limit: The largest L2 norm of the gradient over all processes; None for no limit.

        Returns:
            The norm, a scalar on the device.
        """
        for parameter, local in self.local.items():
            gradient, parameter.grad = parameter.grad, None
            local.grad = gradient.to_local() if isinstance(gradient, DTensor) else gradient
        gradients = [local.grad for local in self.local.values() if local.grad is not None]
        squares = [torch.linalg.vector_norm(one, dtype=_at_least_float32(one.dtype)).square() for one in gradients]
        total = torch.stack(squares).sum()
        dist.all_reduce(total, group=self.mesh.get_group(self.mesh.ndim - 1))
        norm = total.sqrt()
        if limit is not None:
            torch._foreach_mul_(gradients, clipping_factor(norm, limit))
        return norm

    def forget_pass(self) -> None:
        """Forget a pass that failed in every process, with what it had gathered."""
        _forget_pass(self.model)


def _forget_pass(model: FSDPModule) -> None:
    if hasattr(model, "reset_iter_state"):  # torch 2.13
        model.reset_iter_state()
    free_gathered(model)  # type: ignore[arg-type]


def free_gathered(model: torch.nn.Module) -> None:
    """Free weights that passes without a backward pass have left gathered; nothing where no model is sharded."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def is_sharded(model: torch.nn.Module) -> bool:
    """Return whether the processes divide a model among them, so that they have to run it equally often."""
    return isinstance(model, FSDPModule)


def divide(
    model: torch.nn.Module, blocks: Sequence[torch.nn.Module], apart: Sequence[torch.nn.Module],
    mode: Literal["full", "hybrid"], runtime: Runtime, fill: Callable[[torch.nn.Module], None],
) -> None:  # fmt: skip
    """Divide a model among the processes, in place. No process but the main one ever holds all of it.

    Blocks are gathered in autocast's precision, which halves what is sent; their gradients are summed in float32. The
    weights outside (embedding, head) are gathered as they are, so that hidden states keep their precision.

    Args:
        model: The model on the meta device, the same in every process.
        blocks: The modules that are gathered one by one: those that repeat.
        apart: Others that are gathered by themselves, such as a head that shares no weight.
        mode: `full` over all processes; `hybrid` over those of a node, with a copy in each node.
        runtime: The processes, their device and precision.
        fill: Puts a module on the device with its values; called before it is divided.
    """
    device, here = runtime.device.type, runtime.processes_here
    if mode == "hybrid":
        sizes = (runtime.processes // here, here)
        mesh = init_device_mesh(device, sizes, mesh_dim_names=("copies", "shards"))
    else:
        mesh = init_device_mesh(device, (runtime.processes,), mesh_dim_names=("shards",))
    halved = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    plain = MixedPrecisionPolicy(cast_forward_inputs=False)
    for block in blocks:
        fill(block)
        fully_shard(block, mesh=mesh, mp_policy=halved if _takes_halved(block, runtime) else plain)
    for module in (*apart, model):
        fill(module)
        fully_shard(module, mesh=mesh, mp_policy=plain)
    for module in model.modules():
        if isinstance(module, FSDPModule):  # the window divides, and gloo cannot
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def _takes_halved(block: torch.nn.Module, runtime: Runtime) -> bool:
    """Return whether a block can compute with weights in bfloat16; a CPU's LayerNorm cannot, beside float32 states."""
    has_norm = any(isinstance(module, torch.nn.LayerNorm) for module in block.modules())
    return runtime.precision == "bf16" and not (runtime.is_cpu and has_norm)


def shards_of(model: torch.nn.Module) -> Shards | None:
    """Return this process's shards of a model; None where it is whole."""
    if not isinstance(model, FSDPModule):
        return None
    parameters: list[Any] = list(model.parameters())
    return Shards(model, parameters[0].device_mesh, {one: _local(one) for one in parameters if one.requires_grad})


@contextmanager
def run_in_parts(model: torch.nn.Module) -> Iterator[None]:
    """Hold the weights outside a sharded model's blocks whole, so that in the block a part of it can run by itself.

    Every process has to run the same. Blocks that are gathered in bfloat16 are multiplied under autocast. Of a whole
    model nothing is changed.
    """
    if not isinstance(model, FSDPModule):
        yield
        return
    model._get_fsdp_state()._lazy_init()  # else the first part that runs would count as the whole
    model.unshard()
    device: torch.device = next(model.parameters()).device
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=len(dtypes_of(model)) > 1):
            yield
    finally:
        _forget_pass(model)


def dtypes_of(model: torch.nn.Module) -> set[torch.dtype]:
    """Return the floating-point dtypes that a model's weights have when they are used."""
    used = {one.dtype for one in model.parameters() if one.is_floating_point()}
    gathered = (one._get_fsdp_state()._mp_policy.param_dtype for one in model.modules() if isinstance(one, FSDPModule))
    return used | {dtype for dtype in gathered if dtype is not None}


def _local(parameter: torch.nn.Parameter) -> torch.nn.Parameter:
    assert isinstance(parameter, DTensor)
    return torch.nn.Parameter(parameter.to_local().detach())


def like(parameter: torch.Tensor, local: torch.Tensor) -> torch.Tensor:
    """Return a tensor over all processes whose shards are the local ones, divided as a parameter is."""
    if not isinstance(parameter, DTensor) or local.shape != parameter.to_local().shape:
        return local
    return DTensor.from_local(
        local, parameter.device_mesh, parameter.placements, run_check=False, shape=parameter.shape,
        stride=parameter.stride(),
    )  # fmt: skip


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor that may be divided as one that is not. Every process has to call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


class Gathering:
    """Tensors that the processes make whole one by one, in one order, so that none holds all of them.

    Every process has to call `finish`, also one whose work on a tensor has failed: the others wait for it.

    Args:
        tensors: Tensors by name, the same names in every process. Names of one tensor are gathered once.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.outline = {name: torch.empty(one.shape, dtype=one.dtype, device="meta") for name, one in tensors.items()}
        names: dict[int, list[str]] = {}
        for name, tensor in tensors.items():
            names.setdefault(id(tensor), []).append(name)
        self._left = deque((own, tensors[own[0]]) for own in names.values())

    def __iter__(self) -> Iterator[tuple[Sequence[str], torch.Tensor]]:
        """Yield each tensor that is left with its names; one that is not divided is the tensor itself."""
        while self._left:
            names, tensor = self._left.popleft()
            yield names, whole(tensor).detach()

    def in_memory(self) -> dict[str, torch.Tensor]:
        """Return all tensors that are left in the CPU's memory; names of one tensor keep one."""
        return {name: one for names, tensor in self for one in [tensor.to("cpu", copy=True)] for name in names}

    def finish(self) -> None:
        """Gather what is left, and keep nothing of it."""
        for _ in self:
            pass


def is_divided(tensor: torch.Tensor) -> bool:
    """Return whether a tensor lies on several processes."""
    return isinstance(tensor, DTensor)


def own_part(tensor: torch.Tensor) -> torch.Tensor:
    """Return what this process has of a tensor that may be divided."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def own_region(tensor: torch.Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shape of this process's part of a tensor, and where it begins in the whole."""
    if isinstance(tensor, DTensor):
        return compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return tuple(tensor.shape), (0,) * tensor.ndim


def copy_part(whole: torch.Tensor, into: torch.Tensor) -> None:
    """Copy a whole tensor, the same in every process, into one that may be divided: each process its part."""
    if not isinstance(into, DTensor):
        into.copy_(whole)
        return
    local = into.to_local()
    own = distribute_tensor(whole.to(local.device), into.device_mesh, into.placements, src_data_rank=None)
    local.copy_(own.to_local())


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
