"""Adafactor over lists of tensors: few kernels for many parameters, and no wait for the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

_SMALLEST = 1e-30  # added to squares, so that their roots have an inverse
_DECAY = -0.8  # the moments' average is over 1 - step ** _DECAY


class Adafactor(torch.optim.Optimizer):
    """Adafactor (Shazeer and Stern 2018): second moments by row and column, no first; the learning rate is AdamW's.

    It computes what transformers' Adafactor does with `scale_parameter=False` and `relative_step=False`, where each
    parameter takes some twenty kernels.

    A step is left out on the device where `found_inf` is 1, as torch's fused AdamW does; the count of steps goes on.

    Args:
        params: float32 parameters that are stepped together; their step takes a temporary of their size.
        lr: Learning rate.
    """

    def __init__(self, params: Iterable[torch.nn.Parameter], lr: float) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": 0.0})
        self.found_inf: torch.Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Step every parameter that has a gradient."""
        for group in self.param_groups:
            present = [parameter for parameter in group["params"] if parameter.grad is not None]
            for stepped in ([p for p in present if p.ndim >= 2], [p for p in present if p.ndim < 2]):
                if stepped:
                    self._step_together(stepped, group["lr"], group["weight_decay"])

    def change_by_rows(
        self, gradient: torch.Tensor, state: dict[str, Any], slices: Sequence[slice]
    ) -> Callable[[slice, torch.Tensor], None]:
        """Move the moments of one matrix, and return what changes some of its rows; all by slices of rows.

        Args:
            gradient: The gradient, (rows, columns), float32 or in 16 bits.
            state: The matrix's state, which a step of it alone would have.
            slices: Its rows, a part at a time.

        Returns:
            What changes some rows in float32, in place.
        """
        (group,) = self.param_groups
        (key,) = group["params"]
        self.state[key] = state
        state["step"] = state.get("step", 0) + 1
        kept = self._kept([gradient])
        if kept is None:
            return lambda rows, values: None
        columns = torch.zeros(gradient.shape[1], dtype=torch.float32, device=gradient.device)
        row_means = []
        for rows in slices:
            squares = gradient[rows].to(torch.float32, copy=True).square_()
            row_means.append(squares.mean(-1))
            columns += squares.sum(0)
        means = torch.cat(row_means) + _SMALLEST, columns / len(gradient) + _SMALLEST
        names = ("exp_avg_sq_row", "exp_avg_sq_col")
        by_row, by_column = (
            self._averaged([key], name, [one], kept)[0] for name, one in zip(names, means, strict=True)
        )
        row_factors, column_factors = (by_row / by_row.mean()).rsqrt_().unsqueeze(1), by_column.rsqrt()

        def update(rows: slice) -> torch.Tensor:
            return gradient[rows].to(torch.float32, copy=True).mul_(row_factors[rows]).mul_(column_factors)

        norm = torch.stack([update(rows).norm() for rows in slices]).norm()
        factor = (norm / math.sqrt(gradient.numel())).clamp_min_(1.0).reciprocal_() * (-group["lr"] * kept)
        decay = 1 - group["weight_decay"] * group["lr"] * kept

        def change(rows: slice, values: torch.Tensor) -> None:
            if group["weight_decay"] != 0:
                values.mul_(decay)
            values.addcmul_(update(rows), factor)

        return change

    def _step_together(self, parameters: list[torch.nn.Parameter], lr: float, weight_decay: float) -> None:
        """Step parameters that all have moments by row and column, or none of which has."""
        for parameter in parameters:
            state = self.state[parameter]
            state["step"] = state.get("step", 0) + 1
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        kept = self._kept(gradients)
        if kept is None:
            return
        updates = list(torch._foreach_mul(gradients, gradients))
        if parameters[0].ndim >= 2:
            updates = self._by_row_and_column(parameters, updates, kept)
        else:
            torch._foreach_add_(updates, _SMALLEST)
            averages = self._averaged(parameters, "exp_avg_sq", updates, kept)
            updates = list(torch._foreach_rsqrt(averages))
        torch._foreach_mul_(updates, gradients)
        # an update whose root of the mean square exceeds 1 is scaled down to that
        factors = list(torch._foreach_norm(updates))
        torch._foreach_div_(factors, [math.sqrt(max(1, update.numel())) for update in updates])
        torch._foreach_clamp_min_(factors, 1.0)
        torch._foreach_reciprocal_(factors)
        torch._foreach_mul_(factors, -lr * kept)
        weights: list[torch.Tensor] = [*parameters]
        if weight_decay != 0:
            torch._foreach_mul_(weights, 1 - weight_decay * lr * kept)
        torch._foreach_addcmul_(weights, updates, factors)

    def _kept(self, gradients: list[torch.Tensor]) -> torch.Tensor | float | None:
        """Return how much of the step is taken: 1 or 0, on the device; None for nothing, where the host knows that.

        Gradients of a step that is left out become zeros: what is not finite would remain so as a product with zero.
        """
        if self.found_inf is None:
            return 1.0
        if _host_knows(self.found_inf):
            return None if bool(self.found_inf) else 1.0
        is_left_out = self.found_inf.bool()
        for gradient in gradients:
            gradient.masked_fill_(is_left_out, 0.0)
        return 1.0 - self.found_inf

    def _by_row_and_column(
        self, parameters: list[torch.nn.Parameter], squares: list[torch.Tensor], kept: torch.Tensor | float
    ) -> list[torch.Tensor]:
        """Return the inverse root of the moments, written over the squares of the gradients."""
        names = {"exp_avg_sq_row": -1, "exp_avg_sq_col": -2}
        rows, columns = (
            self._averaged(parameters, name, self._means(squares, dimension), kept) for name, dimension in names.items()
        )
        rows = list(torch._foreach_div(rows, [row.mean(-1, keepdim=True) for row in rows]))
        torch._foreach_rsqrt_(rows)
        columns = list(torch._foreach_rsqrt(columns))
        for row, column, product in zip(rows, columns, squares, strict=True):
            torch.mul(row.unsqueeze(-1), column.unsqueeze(-2), out=product)
        return squares

    @staticmethod
    def _means(squares: list[torch.Tensor], dimension: int) -> list[torch.Tensor]:
        means = [square.mean(dimension) for square in squares]
        torch._foreach_add_(means, _SMALLEST)
        return means

    def _averaged(
        self, parameters: list[torch.nn.Parameter], name: str, seen: list[torch.Tensor], kept: torch.Tensor | float
    ) -> list[torch.Tensor]:
        """Move the parameters' averages towards what is seen, and return them."""
        states = [self.state[parameter] for parameter in parameters]
        for state, one in zip(states, seen, strict=True):
            if name not in state:
                state[name] = torch.zeros_like(one)
        averages = [state[name] for state in states]
        changes = list(torch._foreach_sub(seen, averages))
        torch._foreach_mul_(changes, [float(state["step"]) ** _DECAY for state in states])
        if isinstance(kept, torch.Tensor):
            torch._foreach_mul_(changes, kept)
        torch._foreach_add_(averages, changes)
        return averages


def _host_knows(value: torch.Tensor) -> bool:
    """Return whether the host reads a value without waiting for a device."""
    return value.device.type == "cpu"
