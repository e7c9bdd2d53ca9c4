"""Optimizer steps inside the backward pass: each gradient is applied and dropped as soon as it is complete.

Source: LOMO (Lv et al. 2023). The gradient never exists as a whole, so its norm is summed as it passes by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from exceptions import ResourceError
from finetuning.device.oom import MAY_BE_OUT_OF_MEMORY, is_out_of_memory
from finetuning.training.chunked import ChunkedOptimizer


class HalfStep(ResourceError):
    """Memory ran out while the optimizer changed the weights: some may be a step ahead of the others."""


class BackwardNorm:
    """The L2 norm of a gradient whose parts are added one parameter at a time."""

    def __init__(self) -> None:
        self._squares: list[torch.Tensor] = []

    def add(self, gradient: torch.Tensor) -> torch.Tensor:
        """Add a parameter's gradient; return the norm of this gradient alone, a float32 (or float64) scalar."""
        precision = torch.promote_types(gradient.dtype, torch.float32)
        norm: torch.Tensor = torch.linalg.vector_norm(gradient, dtype=precision)
        self._squares.append(norm.square())
        return norm

    def has_begun(self) -> bool:
        """Return whether any gradient was added."""
        return bool(self._squares)

    def total(self) -> torch.Tensor:
        """Return the norm of all gradients that were added, a scalar on their device."""
        return torch.stack(self._squares).sum().sqrt() if self._squares else torch.zeros(())


@contextmanager
def measured_in_backward(model: torch.nn.Module) -> Iterator[BackwardNorm]:
    """Measure every gradient as soon as it is complete, and drop it."""
    norm = BackwardNorm()

    def drop(parameter: torch.nn.Parameter) -> None:
        assert parameter.grad is not None
        norm.add(parameter.grad)
        parameter.grad = None

    with after_each_gradient(model, drop):
        yield norm


@contextmanager
def stepped_in_backward(
    model: torch.nn.Module, optimizer: ChunkedOptimizer, scale: torch.Tensor | None
) -> Iterator[BackwardNorm]:
    """Step every parameter as soon as its gradient is complete, and drop the gradient.

    Args:
        model: The model whose backward pass runs inside the block.
        optimizer: Steps the parameters.
        scale: Factor of every gradient, from clipping, a scalar on the device. None where the norm is not known yet:
            the gradients stay as they are, and parameters whose gradient is not finite are left out.

    Yields:
        The norm of the gradient, complete after the block.

    Raises:
        HalfStep: Memory ran out after the first parameter was stepped.
    """
    norm = BackwardNorm()

    def step(parameter: torch.nn.Parameter) -> None:
        assert parameter.grad is not None
        is_finite = torch.isfinite(norm.add(parameter.grad))
        if scale is not None:
            parameter.grad.mul_(scale)
        elif optimizer.skips_on_device:
            optimizer.found_inf = (~is_finite).float()
        if scale is not None or optimizer.skips_on_device or bool(is_finite):
            optimizer.step_parameter(parameter)
        parameter.grad = None

    try:
        with after_each_gradient(model, step):
            yield norm
    except MAY_BE_OUT_OF_MEMORY as error:
        if not (is_out_of_memory(error) and norm.has_begun()):
            raise
        raise HalfStep(
            "backward 중에 가중치를 업데이트하다가 메모리가 부족해져 스텝을 되돌릴 수 없습니다.",
            where="memory.optimizer_in_backward: true",
            remedy="data.max_length를 줄이거나 memory.gradient_checkpointing을 true로 하고, "
            "--resume으로 마지막 체크포인트에서 이어서 학습하세요.",
        ) from error


@contextmanager
def after_each_gradient(model: torch.nn.Module, hook: Callable[[torch.nn.Parameter], None]) -> Iterator[None]:
    """Call the hook with each trained parameter as soon as its gradient is complete."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    handles = [parameter.register_post_accumulate_grad_hook(hook) for parameter in trained]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
