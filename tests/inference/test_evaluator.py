"""One pass over a split by several processes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from finetuning.device.runtime import Runtime
from tests.support.managers import make_manager


@dataclass(frozen=True)
class OneOfSeveral(Runtime):
    """A process of a group whose other members are not there: what it gathers is its own."""

    rank: int = 0
    size: int = 1

    @property
    def process(self) -> int:
        return self.rank

    @property
    def processes(self) -> int:
        return self.size

    def gathered(self, mine: list[Any]) -> list[Any]:
        return mine


@pytest.mark.parametrize("budgets", [(1024, 1024), (1024, 40), (30, 200)])
def test_every_row_is_evaluated_once_whatever_budget_each_process_has(
    tiny_model: Path, tmp_path: Path, budgets: tuple[int, int]
) -> None:
    """After memory ran out in one process its batches are smaller than those of the others."""
    manager = make_manager(tiny_model, tmp_path, "text-classification", torch.float32)
    whole = manager.evaluator.predict(manager.train_examples)
    ids = manager.train_examples.table["input_ids"]
    seen: list[list[int]] = []
    manager.model.register_forward_pre_hook(
        lambda _m, _a, kwargs: seen.extend(
            [token for token, real in zip(row, mask, strict=True) if real]
            for row, mask in zip(kwargs["input_ids"].tolist(), kwargs["attention_mask"].tolist(), strict=True)
        ),
        with_kwargs=True,
    )
    shares = []
    for rank, budget in enumerate(budgets):
        manager.memory.token_budget = budget
        evaluator = replace(manager.evaluator, runtime=OneOfSeveral(Accelerator(cpu=True), rank=rank, size=2))
        shares.append(evaluator.predict(manager.train_examples))
    assert sorted(seen) == sorted(list(row) for row in ids)
    assert len(shares[0]) + len(shares[1]) == len(whole)
