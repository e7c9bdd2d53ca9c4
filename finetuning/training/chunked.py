"""Optimizers over chunks of a model's parameters: few kernels, and temporaries of a chunk's size alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from finetuning.ops.rounding import stochastically_rounded
from finetuning.training.adafactor import Adafactor
from finetuning.training.large import LargeMatrix

if TYPE_CHECKING:
    from torch.optim import Optimizer

Rule = Callable[[Any], "Optimizer"]  # parameters or groups → an optimizer over them

# Numbers of a chunk that are stepped and rounded at once. Larger chunks leave a CPU's caches; on a GPU each takes the
# launches of some twelve kernels.
_AT_ONCE = {"cpu": 2**20}
_AT_ONCE_ELSEWHERE = 2**22
_LARGE = 2**25  # numbers of a matrix from which it is stepped some rows at a time
_OF_LARGE_ONES = 2**24  # numbers at once on a GPU: a matrix of 262 million takes 16 times a few launches


def numbers_at_once(device: torch.device) -> int:
    """Return how many numbers of parameters are stepped at once on a device."""
    return _AT_ONCE.get(device.type, _AT_ONCE_ELSEWHERE)


def stretch_of(parameter: torch.Tensor, device: torch.device) -> int:
    """Return how many numbers of a parameter AdamW or Adafactor steps at once, which their temporaries have."""
    return _at_once_of_large(device) if _is_large(parameter) else parameter.numel()


def _is_large(parameter: torch.Tensor) -> bool:
    return parameter.ndim == 2 and parameter.numel() >= _LARGE


def _at_once_of_large(device: torch.device) -> int:
    return _AT_ONCE.get(device.type, _OF_LARGE_ONES)


class Chunk:
    """Parameters of one group, dtype and device, and the optimizer that steps them together.

    Args:
        parameters: The parameters.
        group: Their group in the outer optimizer, which has the learning rate and the weight decay as they are now.
        rule: Makes the optimizer.

    Attributes:
        inner: The optimizer: over the parameters, or over float32 tensors that are empty between steps.
    """

    def __init__(self, parameters: list[torch.nn.Parameter], group: dict[str, Any], rule: Rule) -> None:
        self.parameters, self.group = parameters, group
        first = parameters[0]
        self._is_rounded = first.dtype not in (torch.float32, torch.float64)
        if self._is_rounded:
            empty = [torch.empty((0,) * one.ndim, dtype=torch.float32, device=first.device) for one in parameters]
            self._working = [torch.nn.Parameter(one) for one in empty]  # Muon looks at their dimensions
        else:
            self._working = parameters
        self.inner = rule(self._working)

    def step(self, states: Any, found_inf: torch.Tensor | None, generator: torch.Generator) -> None:
        """Step the parameters that have a gradient.

        Args:
            states: The states by parameter, which a checkpoint saves and restores.
            found_inf: 1 on the device for a step that changes nothing; None where the host knows that it is taken.
            generator: Draws the noise of the rounding.
        """
        self.inner.param_groups[0].update(lr=self.group["lr"], weight_decay=self.group["weight_decay"])
        self.inner.found_inf = found_inf  # type: ignore[attr-defined]
        for parameter, working in zip(self.parameters, self._working, strict=True):
            self.inner.state[working] = states[parameter]
        if not self._is_rounded:
            self.inner.step()
            return
        present = [pair for pair in zip(self.parameters, self._working, strict=True) if pair[0].grad is not None]
        if present:
            with _in_float32(present, generator):
                self.inner.step()


@contextmanager
def _in_float32(
    pairs: list[tuple[torch.nn.Parameter, torch.nn.Parameter]], generator: torch.Generator
) -> Iterator[None]:
    """Fill working tensors with parameters and their gradients; afterwards round them back into the parameters.

    All lie in one tensor, so that each of the rounding's kernels runs once for all of them.
    """
    parameters, working = (list(side) for side in zip(*pairs, strict=True))
    sizes, device = [parameter.numel() for parameter in parameters], parameters[0].device
    values, gradients = (torch.empty(sum(sizes), dtype=torch.float32, device=device) for _ in range(2))

    def parts(flat: torch.Tensor) -> list[torch.Tensor]:
        return [part.view_as(one) for part, one in zip(flat.split(sizes), parameters, strict=True)]

    torch._foreach_copy_(parts(values), parameters)
    torch._foreach_copy_(parts(gradients), [one.grad for one in parameters if one.grad is not None])
    for one, value, gradient in zip(working, parts(values), parts(gradients), strict=True):
        one.data, one.grad = value, gradient
    yield
    nothing = torch.empty(0, device=device)
    for one in working:
        one.data, one.grad = nothing, None
    rounded = gradients.view(torch.bfloat16)[: values.numel()]  # the gradients are not needed any more
    slices = (flat.split(numbers_at_once(device)) for flat in (rounded, values))
    for into, exact in zip(*slices, strict=True):
        into.copy_(stochastically_rounded(exact, generator))
    torch._foreach_copy_(parameters, parts(rounded))


class ChunkedOptimizer(torch.optim.Optimizer):
    """Steps a model's parameters chunk by chunk, each with an optimizer that its group's rule makes for it.

    A bfloat16 parameter is stepped in float32 and rounded stochastically, so that updates smaller than its resolution
    are not lost.

    Args:
        groups: The parameters in groups, as of torch's optimizers.
        lr: Learning rate.
        rules: For each group, what makes the optimizer of a chunk.
        at_once: Numbers of a chunk; a larger parameter is a chunk of its own. 0 makes each parameter one.

    Attributes:
        is_adamw: Whether every chunk is stepped by torch's AdamW.
        takes_found_inf: Whether every chunk's optimizer leaves a step out where `found_inf` is 1.
        skips_on_device: Whether parameters that are stepped in the backward pass are left out by `found_inf`, so that
            the host does not wait.
        found_inf: 1 on the device for a step that changes nothing, as of torch's AdamW. Adafactor takes it, too.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, rules: Sequence[Rule], at_once: int) -> None:
        super().__init__(groups, {"lr": lr, "fused": True})  # "fused": the step count is a tensor beside the moments
        self._chunks: list[Chunk | LargeMatrix] = [
            _chunk_of(parameters, group, rule)
            for group, rule in zip(self.param_groups, rules, strict=True)
            for parameters in _chunks_of(group["params"], at_once)
        ]
        self._chunk_of = {parameter: chunk for chunk in self._chunks for parameter in chunk.parameters}
        self._rounding = {device: torch.Generator(device) for device in {p.device for p in self._chunk_of}}
        self.is_adamw = all(isinstance(chunk.inner, torch.optim.AdamW) for chunk in self._chunks)
        self.takes_found_inf = all(isinstance(c.inner, torch.optim.AdamW | Adafactor) for c in self._chunks)
        self.skips_on_device = False
        self.found_inf: torch.Tensor | None = None

    def seed_rounding(self, seed: int, step: int, shard: int) -> None:
        """Seed the rounding of a step by the run alone, so that the replicas of several processes stay equal.

        Args:
            seed: Seed of the run.
            step: Number of the step, from 0.
            shard: Which shard of the weights is stepped; 0 where they are whole.
        """
        number = int(np.random.SeedSequence([seed, step, shard]).generate_state(1, np.uint64)[0])
        for generator in self._rounding.values():
            generator.manual_seed(number)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Step every parameter that has a gradient."""
        for chunk in self._chunks:
            self._step(chunk)

    @torch.no_grad()
    def step_parameter(self, parameter: torch.nn.Parameter) -> None:
        """Step the chunk of one parameter: those of its parameters that have a gradient."""
        self._step(self._chunk_of[parameter])

    def _step(self, chunk: Chunk | LargeMatrix) -> None:
        chunk.step(self.state, self.found_inf, self._rounding[chunk.parameters[0].device])


def _chunk_of(parameters: list[torch.nn.Parameter], group: dict[str, Any], rule: Rule) -> Chunk | LargeMatrix:
    """Return what steps these parameters: a large matrix by rows, where its optimizer can and takes temporaries."""
    first = parameters[0]
    if len(parameters) == 1 and _is_large(first):
        working = torch.nn.Parameter(torch.empty((0, 0), dtype=torch.float32, device=first.device))
        inner = rule([working])
        if isinstance(inner, Adafactor) or (isinstance(inner, torch.optim.AdamW) and first.dtype == torch.bfloat16):
            return LargeMatrix(first, group, inner, working, _at_once_of_large(first.device))
    return Chunk(parameters, group, rule)


def _chunks_of(parameters: list[torch.nn.Parameter], at_once: int) -> Iterator[list[torch.nn.Parameter]]:
    """Yield the parameters in order, in chunks of one dtype and device."""
    kinds: dict[tuple[torch.dtype, torch.device], list[torch.nn.Parameter]] = {}
    for parameter in parameters:
        kinds.setdefault((parameter.dtype, parameter.device), []).append(parameter)
    for kind in kinds.values():
        chunk, numbers = list[torch.nn.Parameter](), 0
        for parameter in kind:
            if chunk and numbers + parameter.numel() > at_once:
                yield chunk
                chunk, numbers = [], 0
            chunk.append(parameter)
            numbers += parameter.numel()
        yield chunk
