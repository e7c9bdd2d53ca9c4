"""What each of several processes holds of a run, and what it receives in a step: a model of it, not a measurement."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from finetuning.models.adapters import stacks
from finetuning.models.quantization import quantized_weights
from finetuning.planning.types import Estimate

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_HALVED = 2  # bytes of a weight that is gathered in bfloat16
_PACKED, _SCALES = 0.5, 0.02  # bytes of a 4-bit weight, and of its scales, which no process divides
_GATHERED_BLOCKS = 2  # the block that is computed, and the next one, which is on its way


@dataclass(frozen=True)
class Division:
    """How several processes work on one model.

    Attributes:
        processes: All of them.
        shards: Those that divide the weights; 1 where each has them all.
        blocks: Parameters of each block of the model.
        packed: Those of each block whose weights lie in 4 bits.
        outside: Parameters outside the blocks.
        is_halved: Whether blocks are gathered in bfloat16.
        passes: Micro-batches of a window.
    """

    processes: int
    shards: int
    blocks: tuple[int, ...]
    packed: tuple[int, ...]
    outside: int
    is_halved: bool
    passes: int

    @classmethod
    def of(
        cls, model: PreTrainedModel, processes: int, shards: int, precision: str, passes: int,
        quantization: str | None = None,
    ) -> Division:  # fmt: skip
        """Describe the division of a model, which may be on the meta device; precision: autocast's."""
        blocks = {
            f"{name}.{place}.": block for name, stack in stacks(model).items() for place, block in enumerate(stack)
        }
        sizes = tuple(sum(one.numel() for one in block.parameters()) for block in blocks.values())
        outside = sum(one.numel() for one in model.parameters()) - sum(sizes)
        layers = quantized_weights(model, quantization if quantization == "4bit" else None)
        packed = tuple(sum(size for name, size in layers.items() if name.startswith(block)) for block in blocks)
        return cls(processes, shards, sizes, packed, outside, precision == "bf16", passes)

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
        kept, largest, scales = self._kept(estimate), max(self.blocks, default=0), _SCALES * sum(self.packed)
        trained = estimate.trained / max(1, estimate.parameters)
        gathered = _GATHERED_BLOCKS * max(self._gathered(estimate), default=0) + self.outside * kept
        # gradients on their way: of a block, or at last of what lies outside
        summed = max(largest, self.outside) * trained * kept if self.passes == 1 else 0
        # autocast keeps no copies of the blocks' weights, which are gathered in its precision
        copies = _HALVED * sum(self.blocks) * trained if estimate.counted and self.is_halved else 0
        return replace(
            estimate,
            weights=int((estimate.weights - scales) // self.shards + scales),
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
        gathered = self.passes * (2 * sum(self._gathered(estimate)) + self.outside * self._kept(estimate))
        return int((1 - 1 / self.shards) * (gathered + estimate.gradients))

    def _kept(self, estimate: Estimate) -> float:
        """Return the bytes of a weight that is not in 4 bits, where it lies."""
        packed = sum(self.packed)
        return (estimate.weights - (_PACKED + _SCALES) * packed) / max(1, estimate.parameters - packed)

    def _gathered(self, estimate: Estimate) -> list[float]:
        """Return the bytes of each block that are gathered."""
        used = _HALVED if self.is_halved else self._kept(estimate)
        return [
            (size - packed) * used + packed * _PACKED for size, packed in zip(self.blocks, self.packed, strict=True)
        ]
