"""One large matrix, such as an embedding, that is stepped some rows at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from finetuning.ops.rounding import stochastically_rounded
from finetuning.training.adafactor import Adafactor

if TYPE_CHECKING:
    from torch.optim import Optimizer


def adamw_state(parameter: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return AdamW's state of a parameter before its first step: two moments, at least float32, and the count."""
    dtype = torch.promote_types(parameter.dtype, torch.float32)
    moments = {
        name: torch.zeros_like(parameter, dtype=dtype, memory_format=torch.preserve_format)
        for name in ("exp_avg", "exp_avg_sq")
    }
    return {"step": torch.zeros((), dtype=torch.float32, device=parameter.device), **moments}


class LargeMatrix:
    """A matrix whose step takes float32 temporaries of some of its rows alone.

    Gemma's embedding of 262,144 pieces would take three of 671 MB, beside a model that takes 536 MB in bfloat16.

    Args:
        parameter: The matrix, float32 or bfloat16.
        group: Its group in the outer optimizer, which has the learning rate and the weight decay as they are now.
        inner: AdamW or Adafactor over `working`.
        working: A float32 parameter that holds the rows being stepped, and is empty between steps.
        at_once: Numbers that are stepped at once.
    """

    def __init__(
        self, parameter: torch.nn.Parameter, group: dict[str, Any], inner: Optimizer, working: torch.nn.Parameter,
        at_once: int,
    ) -> None:  # fmt: skip
        self.parameters, self.group, self.inner = [parameter], group, inner
        self._working = working
        rows = max(1, at_once // parameter.shape[1])
        self._slices = [slice(first, first + rows) for first in range(0, len(parameter), rows)]

    def step(self, states: Any, found_inf: torch.Tensor | None, generator: torch.Generator) -> None:
        """Step the matrix if it has a gradient; arguments as of chunked.Chunk.step."""
        (parameter,) = self.parameters
        if parameter.grad is None:
            return
        self.inner.param_groups[0].update(lr=self.group["lr"], weight_decay=self.group["weight_decay"])
        self.inner.found_inf = found_inf  # type: ignore[attr-defined]
        by = self._by_moments if isinstance(self.inner, Adafactor) else self._by_elements
        change = by(parameter.grad, states[parameter])
        for rows in self._slices:
            values = parameter[rows].float()
            change(rows, values)
            into = parameter[rows]
            into.copy_(values if parameter.dtype == torch.float32 else stochastically_rounded(values, generator))

    def _by_elements(self, gradient: torch.Tensor, state: dict[str, Any]) -> Callable[[slice, torch.Tensor], None]:
        """Return what steps some rows, in which AdamW steps each number by its own moments.

        Every slice takes the same step, by a count of its own; the last one's is that of the matrix.
        """
        if not state:
            state.update(adamw_state(self.parameters[0]))
        count = state["step"].clone()

        def change(rows: slice, values: torch.Tensor) -> None:
            working = self._working
            working.data, working.grad = values, gradient[rows].float()
            state["step"].copy_(count)
            self.inner.state[working] = {
                "step": state["step"], **{name: state[name][rows] for name in ("exp_avg", "exp_avg_sq")}
            }  # fmt: skip
            self.inner.step()
            working.data, working.grad = torch.empty(0, device=values.device), None
            del self.inner.state[working]

        return change

    def _by_moments(self, gradient: torch.Tensor, state: dict[str, Any]) -> Callable[[slice, torch.Tensor], None]:
        """Return what steps some rows, after Adafactor has moved the moments of all."""
        assert isinstance(self.inner, Adafactor)
        return self.inner.change_by_rows(gradient, state, self._slices)
