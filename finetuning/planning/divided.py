"""What each of several processes holds of a run, and what it receives in a step: a model of it, not a measurement."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from finetuning.models.adapters import stacks
from finetuning.planning.types import Estimate

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_HALVED = 2  # bytes of a weight that is gathered in bfloat16
_GATHERED_BLOCKS = 2  # the block that is computed, and the next one, which is on its way


@dataclass(frozen=True)
class Division:
    """How several processes work on one model.

    Attributes:
        processes: All of them.
        shards: Those that divide the weights; 1 where each has them all.
        blocks: Parameters of each block of the model.
        outside: Parameters outside the blocks.
        is_halved: Whether blocks are gathered in bfloat16.
        passes: Micro-batches of a window.
    """

    processes: int
    shards: int
    blocks: tuple[int, ...]
    outside: int
    is_halved: bool
    passes: int

    @classmethod
    def of(cls, model: PreTrainedModel, processes: int, shards: int, precision: str, passes: int) -> Division:
        """Describe the division of a model, which may be on the meta device; precision: autocast's."""
        blocks = [block for stack in stacks(model).values() for block in stack]
        sizes = tuple(sum(one.numel() for one in block.parameters()) for block in blocks)
        outside = sum(one.numel() for one in model.parameters()) - sum(sizes)
        return cls(processes, shards, sizes, outside, precision == "bf16", passes)

    def held(self, estimate: Estimate) -> Estimate:
        """Return what one process holds at its peak.

        Gradients are divided when they are summed, after the window's last micro-batch: with several of them they lie
        whole in each process until then.

        Args:
            estimate: The run in one process.

        Returns:
            The run in each of the processes.
        """
        if self.shards == 1:
            return estimate
        kept = estimate.weights / max(1, estimate.parameters)
        used, largest = _HALVED if self.is_halved else kept, max(self.blocks, default=0)
        trained = estimate.trained / max(1, estimate.parameters)
        gathered = _GATHERED_BLOCKS * largest * used + self.outside * kept
        # gradients on their way: of a block, or at last of what lies outside
        summed = max(largest, self.outside) * trained * kept if self.passes == 1 else 0
        # autocast keeps no copies of the blocks' weights, which are gathered in its precision
        copies = _HALVED * sum(self.blocks) * trained if estimate.counted and self.is_halved else 0
        return replace(
            estimate,
            weights=estimate.weights // self.shards,
            gradients=estimate.gradients // (self.shards if self.passes == 1 else 1),
            optimizer=estimate.optimizer // self.shards,
            activations=int(max(0, estimate.activations - copies) + gathered + summed),
            copy=0,  # checkpoints are written from the shards
        )

    def received(self, estimate: Estimate) -> int:
        """Return the bytes that a process receives in a step, by the usual ring algorithms.

        Weights are gathered for each forward and each backward pass, those outside the blocks once for both.

        Args:
            estimate: The run in one process.

        Returns:
            The bytes; the sums of gradients among copies of the shards are left out.
        """
        others = 1 - 1 / self.processes
        if self.shards == 1:
            return int(2 * others * estimate.gradients)
        kept = estimate.weights / max(1, estimate.parameters)
        used = _HALVED if self.is_halved else kept
        gathered = self.passes * (2 * sum(self.blocks) * used + self.outside * kept)
        return int((1 - 1 / self.shards) * (gathered + estimate.gradients))
