"""Memory that runs out in one process of a group, in the middle of training."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

LARGEST = 100  # tokens of a micro-batch that fits


def while_micro_batches_are_large() -> None:
    """Let process 1 fail as long as its token budget is more than `LARGEST`."""
    _fail_where(lambda stepper, _step: stepper.memory.token_budget > LARGEST)


def at_the_third_step() -> None:
    """Let process 1 fail at the third step, whatever its budget."""
    _fail_where(lambda _stepper, step: step == 2)


def _fail_where(is_too_much: Callable[[Any, int], bool]) -> None:
    import torch

    from finetuning.training.step import OptimizerStep

    accumulate = OptimizerStep.accumulate

    def failing(self: Any, batches: Any, counts: Any, step: int) -> torch.Tensor:
        if os.environ["RANK"] == "1" and is_too_much(self, step):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return accumulate(self, batches, counts, step)

    OptimizerStep.accumulate = failing  # type: ignore[method-assign]
