"""Memory of a GPU that is not there: what is asked of CUDA, and what the answers lead to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from finetuning.config.schema import Settings
from memory_utils import MemoryManager

GIB = 2**30


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stand for a card of 8 GiB of which other programs and CUDA's context leave 6 free; keeps what is asked of it."""
    seen = SimpleNamespace(free=6 * GIB, reserved=0, fractions=[], emptied=0)

    def empty() -> None:
        seen.emptied += 1

    made: dict[str, Any] = {
        "current_device": lambda: 0,
        "mem_get_info": lambda device=None: (seen.free, 8 * GIB),
        "get_device_properties": lambda device: SimpleNamespace(total_memory=8 * GIB),
        "memory_reserved": lambda device=None: seen.reserved,
        "memory_allocated": lambda device=None: GIB,
        "max_memory_allocated": lambda device=None: 2 * GIB,
        "set_per_process_memory_fraction": lambda *given: seen.fractions.append(given),
        "empty_cache": empty,
        "ipc_collect": lambda: None,
    }
    for name, function in made.items():
        monkeypatch.setattr(torch.cuda, name, function)
    return seen


def memory_on(device: str, **memory: Any) -> MemoryManager:
    return MemoryManager(Settings.model_validate({"memory": memory}), torch.device(device), 8)


@pytest.mark.parametrize(("device", "index"), [("cuda", 0), ("cuda:1", 1)])
def test_the_limit_is_a_share_of_what_is_free_and_is_set_by_the_cards_number(
    device: str, index: int, card: SimpleNamespace
) -> None:
    limit = memory_on(device, max_gpu_memory_usage=0.5).limit()
    assert 2.8 * GIB < limit <= 3 * GIB
    assert card.fractions == [(limit / (8 * GIB), index)]


def test_what_this_process_holds_counts_as_free(card: SimpleNamespace) -> None:
    before = memory_on("cuda").limit()
    card.free, card.reserved = 2 * GIB, 4 * GIB
    assert memory_on("cuda").limit() == before


def test_the_limit_stays_that_of_the_start(card: SimpleNamespace) -> None:
    """Memory that is in use later is compared with it."""
    memory = memory_on("cuda")
    before, card.free = memory.limit(), GIB
    assert memory.limit() == before
    assert memory.describe() == f"GPU 메모리 1.00/{before / GIB:.1f} GiB (최대 2.00)"


def test_the_cache_is_emptied_when_it_is_due_and_after_memory_ran_out(card: SimpleNamespace) -> None:
    memory = memory_on("cuda", empty_cache_freq=2)
    for step in (1, 2, 3, 4):
        memory.after_step(step)
    assert card.emptied == 2
    memory.shrink(largest=64, examples=2)
    assert card.emptied == 3
