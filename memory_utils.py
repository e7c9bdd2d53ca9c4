"""MemoryManager: the memory limit of a run, its use, clean-up, and what to do when memory runs out."""

from __future__ import annotations

import gc
import logging
from typing import TYPE_CHECKING, Any

from exceptions import OutOfMemory
from finetuning.config.ladder import remedies
from finetuning.config.schema import Settings
from finetuning.device.allocator import keep_freed_blocks, limit_gpu, map_large_blocks, return_freed_blocks, trim_heap
from finetuning.device.oom import out_of_memory
from finetuning.device.peers import launches_several
from finetuning.device.usage import gpu_limit_bytes, host_limit_bytes, peak_bytes, used_bytes

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)
_GIB = 1024**3
_NEARLY_FULL = 0.6  # of the limit; a CPU's heap is trimmed after every step above it


class MemoryManager:
    """Watches the memory of a run's device, and holds the token budget that micro-batches are cut to.

    It implements `finetuning.device.budget.TokenBudget`, which the rooms use.

    Args:
        settings: The settings in force.
        device: The device that the model computes on.
        max_length: Most tokens of an example.

    Attributes:
        token_budget: The most tokens in a micro-batch, as its layout counts them. It starts at batch_size ×
            max_length and only goes down.
        trains: Whether the model is being trained, and not only used.
        chosen: The settings that `memory.optimize_memory_usage` chose, by dotted name. A resumed run keeps them.
    """

    def __init__(self, settings: Settings, device: torch.device, max_length: int) -> None:
        self.settings, self.device = settings, device
        self.token_budget = settings.data.batch_size * max_length
        self.trains = False
        self.chosen: dict[str, Any] = {}
        self._is_short = False
        self._gpu_limit: int | None = None
        if device.type == "cuda":
            self._gpu_limit = gpu_limit_bytes(device, settings.memory.max_gpu_memory_usage)
            limit_gpu(device, self._gpu_limit)

    # --- limit and use ---

    def limit(self) -> int:
        """Return the bytes that this run may use: of the GPU by `max_gpu_memory_usage`, or of the machine."""
        return host_limit_bytes() if self._gpu_limit is None else self._gpu_limit

    def used(self) -> int:
        """Return the bytes in use now: allocated on the GPU, or resident in this process."""
        return used_bytes(self.device)

    def peak(self) -> int:
        """Return the most bytes that were in use at once."""
        return peak_bytes(self.device)

    def describe(self) -> str:
        """Return the memory in use, the limit and the peak as one phrase for the log."""
        name = "GPU 메모리" if self.device.type == "cuda" else "메모리"
        return f"{name} {self.used() / _GIB:.2f}/{self.limit() / _GIB:.1f} GiB (최대 {self.peak() / _GIB:.2f})"

    # --- clean-up ---

    def keep_freed_blocks(self) -> None:
        """Keep what a CPU's steps free for the next one, unless memory has run out or is what the settings save."""
        if self.device.type != "cpu" or self._is_short:
            return
        if self.settings.memory.optimizer_in_backward:
            return_freed_blocks()
        else:
            keep_freed_blocks()

    def after_step(self, step: int) -> None:
        """Do the clean-up that is due after optimizer step `step` under the settings and the memory in use."""
        import torch

        if _is_due(step, self.settings.memory.empty_cache_freq) and self.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.settings.memory.optimizer_in_backward:
            self.trim_heap()
        if self.device.type == "cpu" and self.used() > _NEARLY_FULL * self.limit():
            self.clean_up()  # costs some speed, so only where free blocks of the heap take memory that is needed
        if _is_due(step, self.settings.training.cuda_cleanup_freq):
            self.clean_up()
            _log.debug("스텝 %s: %s", f"{step:,}", self.describe())

    def clean_up(self) -> None:
        """Collect garbage, which may hold tensors, and return unused blocks to the device."""
        import torch

        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.ipc_collect()
            torch.cuda.empty_cache()
        self.trim_heap()

    def trim_heap(self) -> None:
        """Return free blocks of a CPU's heap to the system; does nothing on a GPU."""
        if self.device.type == "cpu":
            trim_heap()

    # --- out of memory ---

    def start_at(self, budget: int) -> None:
        """Lower the token budget to one that is known to fit on this machine, and keep a CPU's heap small."""
        self.token_budget = min(self.token_budget, budget)
        self._is_short = True
        if self.device.type == "cpu":
            map_large_blocks()

    def shrink(self, largest: int, examples: int) -> None:
        """Halve the token budget after memory ran out on a micro-batch.

        Args:
            largest: Tokens of that micro-batch, as the budget counts them.
            examples: Examples in it.

        Raises:
            OutOfMemory: The micro-batch was a single example, so it cannot be split.
        """
        if examples <= 1:
            divided = " 예제 하나를 여러 카드에 나누어 계산하지는 않습니다." if launches_several() else ""
            raise self.ran_out(f"토큰 {largest:,}개짜리 예제 하나도 메모리에 들어가지 않습니다.{divided}")
        self.start_at(max(1, min(self.token_budget, largest) // 2))
        self.clean_up()
        _log.warning(
            "메모리가 부족하여 micro-batch를 토큰 %s개 이하로 다시 나눕니다. 결과는 달라지지 않습니다.",
            f"{self.token_budget:,}",
        )

    def ran_out(self, what: str) -> OutOfMemory:
        """Build the error for memory that ran out after every automatic remedy; what: the message, in Korean."""
        return out_of_memory(what, self.describe(), remedies(self.settings, "train" if self.trains else "use"))


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
