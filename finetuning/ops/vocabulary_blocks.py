"""The blocks of items whose logits a vocabulary loss keeps at once: their sums, and the gradients that come of them."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import torch

from exceptions import first_line_of
from finetuning.ops.head_gradient import Tile, gradient_product

_log = logging.getLogger(__name__)
_BLOCK_BYTES = 2**27  # of a block's logits: enough to fill a GPU
_BLOCK_BYTES_OF_KERNELS = 2**28  # which keep nothing else of a block
_BLOCK_BYTES_ON_CPU = 2**28  # 512 items of 262,144 pieces in bfloat16: as long in products as in writing a gradient
_TILE_LOGITS = {"cpu": 2**21}  # few enough for a CPU's cache; elsewhere a tile is the whole vocabulary
_COPIES = 3  # of a tile's logits that exist at once, in float32


def loss_bytes(device_type: str) -> int:
    """Return how many bytes of logits the loss keeps at most on a device of this type (torch's name for it)."""
    if has_kernels(device_type):
        return _BLOCK_BYTES_OF_KERNELS
    return _block_bytes(device_type) + 4 * _COPIES * _TILE_LOGITS.get(device_type, _BLOCK_BYTES // 2)


def has_kernels(device_type: str) -> bool:
    """Return whether the loss has kernels of its own on a device of this type: on a GPU where Triton works."""
    return device_type == "cuda" and _triton_works()


@functools.cache
def _triton_works() -> bool:
    """Return whether the kernels run and compute what torch does; found by trying, once a process.

    Triton compiles a module in C when it starts, which fails without a compiler or Python's headers.
    """
    if find_spec("triton") is None:
        return False
    try:
        from finetuning.ops.vocabulary_kernels import compute_as_torch

        return compute_as_torch(torch.device("cuda"))
    except Exception as error:  # a compiler's errors are of any type
        _log.info(
            "Triton을 쓸 수 없어 cross-entropy를 PyTorch 연산으로 계산합니다. 결과는 같고 조금 느립니다: %s",
            first_line_of(error),
        )
        return False


def _block_bytes(device_type: str) -> int:
    if has_kernels(device_type):
        return _BLOCK_BYTES_OF_KERNELS
    return _BLOCK_BYTES_ON_CPU if device_type == "cpu" else _BLOCK_BYTES


def is_one_block(logits: int, dtype: torch.dtype, device_type: str) -> bool:
    """Return whether so many logits of a dtype are kept at once on a device of this type."""
    return logits * dtype.itemsize <= _block_bytes(device_type)


@dataclass(frozen=True)
class Head:
    """An output layer, read in tiles of its vocabulary.

    Attributes:
        weight: Shape (vocabulary, hidden size); cast already where a tile is the whole vocabulary.
        bias: Shape (vocabulary,), or None.
        dtype: What the products are computed in.
        items_at_once: Items of a block.
        columns: Pieces of the vocabulary in a tile.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    dtype: torch.dtype
    items_at_once: int
    columns: int

    @classmethod
    def of(cls, weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype, items: int) -> Head:
        """Build it from the layer's parameters, for some number of items in all."""
        vocabulary, kind = len(weight), weight.device.type
        items = max(1, min(items, _block_bytes(kind) // dtype.itemsize // vocabulary))
        if kind not in _TILE_LOGITS:
            return cls(weight.to(dtype), bias, dtype, items, vocabulary)
        return cls(weight, bias, dtype, items, min(vocabulary, max(1, _TILE_LOGITS[kind] // items)))

    def tiles(self) -> Iterator[tuple[int, torch.Tensor, torch.Tensor | None]]:
        """Yield the first piece of each tile, its weight and its bias in the products' dtype."""
        for first in range(0, len(self.weight), self.columns):
            end = first + self.columns
            bias = None if self.bias is None else self.bias[first:end].to(self.dtype)
            yield first, self.weight[first:end].to(self.dtype), bias


class Gradients:
    """The gradients of a head's weight and bias, in their dtypes; None for what is not trained.

    Args:
        weight: The head's weight if it is trained, else None.
        bias: The same of its bias.
        tiles: Where the weight's gradient is computed later: what it is computed from.
    """

    def __init__(
        self, weight: torch.Tensor | None, bias: torch.Tensor | None, tiles: list[Tile] | None = None
    ) -> None:  # fmt: skip
        self.tiles = tiles
        self.weight = torch.empty_like(weight) if weight is not None else None
        self.bias = torch.zeros_like(bias) if bias is not None else None
        self._blocks = 0

    @classmethod
    def of(
        cls, weight: torch.Tensor, bias: torch.Tensor | None, needs: Sequence[bool], tiles: list[Tile] | None = None
    ) -> Gradients:
        """Build those that are needed."""
        return cls(weight if needs[0] else None, bias if needs[1] else None, tiles)

    def add(self, first: int, error: torch.Tensor, hidden: torch.Tensor) -> None:
        """Add those of a tile: its logits' gradients, (items, columns), and the items' hidden states."""
        pieces = slice(first, first + error.shape[1])
        if self.bias is not None:
            self.bias[pieces] += error.sum(0, dtype=torch.promote_types(error.dtype, torch.float32))
        if self.tiles is not None:
            self.tiles.append(Tile(first, error.to(hidden.dtype), hidden))
        if self.weight is None:
            return
        if self._adds_in_product(hidden):
            from finetuning.ops.vocabulary_kernels import add_product

            if not self._blocks:
                self.weight.zero_()
            add_product(self.weight, error.to(hidden.dtype).t(), hidden)
            return
        product = gradient_product(error.to(hidden.dtype).t(), hidden)
        if not self._blocks:  # nothing is to be read, or filled with zeros first
            self.weight[pieces] = product
        elif product.device.type == "cpu":  # which adds another dtype at half the speed
            self.weight[pieces] += product.to(self.weight.dtype)
        else:
            self.weight[pieces] += product

    def _adds_in_product(self, hidden: torch.Tensor) -> bool:
        """Whether cuBLAS adds to the gradient itself: a float32 one, of factors in 16 bits, not tile by tile."""
        is_float32 = self.weight is not None and self.weight.dtype == torch.float32
        return is_float32 and hidden.dtype.itemsize == 2 and has_kernels(hidden.device.type)

    def end_block(self) -> None:
        """Note that each tile of a block was added."""
        self._blocks += 1


class Block:
    """The logits of a block of items, kept in tiles of the vocabulary until they become gradients.

    Args:
        hidden: Hidden states in the products' dtype, (items, hidden size).
        wanted: Token ids, int64, (items,).
        head: The output layer. Its bias is added in the product's dtype, as nn.Linear does.

    Attributes:
        log_sums: The logarithm of each item's sum of exponentials, (items,), at least float32.
        chosen: The logit of each item's token, the same.
        losses: The cross-entropy of each item, the same. It is not the rounded sum less the logit: both are taken from
            the largest logit.
    """

    def __init__(self, hidden: torch.Tensor, wanted: torch.Tensor, head: Head) -> None:
        self._hidden, self._wanted, self._head = hidden, wanted, head
        self._tiles: list[torch.Tensor] = []
        tops, sums = list[torch.Tensor](), list[torch.Tensor]()
        self.chosen = hidden.new_zeros(len(hidden), dtype=torch.promote_types(head.dtype, torch.float32))
        for first, weight, bias in head.tiles():
            kept = torch.nn.functional.linear(hidden, weight, bias)
            logits = kept.to(self.chosen.dtype)
            tops.append(logits.amax(-1).clamp_min(torch.finfo(logits.dtype).min))
            sums.append((logits - tops[-1].unsqueeze(1)).exp_().sum(-1))
            place, is_here = self._places(first, logits)
            self.chosen += torch.where(is_here, logits.gather(1, place).squeeze(1), 0.0)
            self._tiles.append(kept)
        by_tile = torch.stack(tops)
        top = by_tile.amax(0)
        above = (torch.stack(sums) * (by_tile - top).exp()).sum(0).log()
        self.log_sums, self.losses = top + above, top - self.chosen + above

    def means(self) -> torch.Tensor:
        """Return each item's mean logit, (items,)."""
        sums = torch.stack([tile.to(self.chosen.dtype).sum(-1) for tile in self._tiles])
        return sums.sum(0) / len(self._head.weight)

    def backward(self, made: Gradients, weights: torch.Tensor | None = None, smoothing: float = 0.0) -> torch.Tensor:
        """Add the gradients of the head, and return those of the hidden states; the logits are dropped.

        The gradient of a logit is softmax minus one-hot, or minus the smoothed target.

        Args:
            made: What the gradients of the head are added to.
            weights: What each item's gradient is multiplied by, (items,); None is one.
            smoothing: Share of each target that is spread over the whole vocabulary.

        Returns:
            Shape (items, hidden size), in at least the products' dtype.
        """
        parts: list[torch.Tensor] = []
        tiles, self._tiles = self._tiles[::-1], []
        for first, weight, _ in self._head.tiles():
            error = tiles.pop().to(self.chosen.dtype).sub_(self.log_sums.unsqueeze(1)).exp_()
            place, is_here = self._places(first, error)
            error.scatter_add_(1, place, torch.where(is_here, smoothing - 1.0, 0.0).to(error.dtype).unsqueeze(1))
            if smoothing:
                error -= smoothing / len(self._head.weight)
            if weights is not None:
                error *= weights.unsqueeze(1)
            made.add(first, error, self._hidden)
            part = gradient_product(error.to(self._head.dtype), weight)
            parts = [parts[0].to(self.chosen.dtype).add_(part)] if parts else [part]
        made.end_block()
        return parts[0]

    def _places(self, first: int, tile: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the column of each item's token in a tile, (items, 1), and whether it is there, (items,)."""
        place = self._wanted - first
        return place.clamp(0, tile.shape[1] - 1).unsqueeze(1), (place >= 0) & (place < tile.shape[1])


class BlockOfKernels:
    """The same by kernels of our own: the logits of the whole vocabulary become gradients in place.

    Args:
        hidden: As of Block.
        wanted: As of Block.
        head: As of Block; a tile of it is the whole vocabulary.

    Attributes:
        losses: As of Block, float32.
        chosen: As of Block, float32.
    """

    def __init__(self, hidden: torch.Tensor, wanted: torch.Tensor, head: Head) -> None:
        from finetuning.ops.vocabulary_kernels import sums_of

        self._hidden, self._wanted = hidden, wanted
        ((_, self._weight, bias),) = head.tiles()
        self._logits: torch.Tensor | None = torch.nn.functional.linear(hidden, self._weight, bias)
        self._sums = sums_of(self._logits, wanted)
        self.losses, self.chosen = self._sums.losses, self._sums.chosen

    def means(self) -> torch.Tensor:
        """Return each item's mean logit, (items,)."""
        return self._sums.means

    def backward(self, made: Gradients, weights: torch.Tensor | None = None, smoothing: float = 0.0) -> torch.Tensor:
        """Do what `Block.backward` does."""
        from finetuning.ops.vocabulary_kernels import turn_into_gradients

        error, self._logits = self._logits, None
        assert error is not None
        turn_into_gradients(error, self._wanted, self._sums.log_sums, weights, smoothing)
        made.add(0, error, self._hidden)
        made.end_block()
        return gradient_product(error, self._weight)


def block_of(hidden: torch.Tensor, wanted: torch.Tensor, head: Head) -> Block | BlockOfKernels:
    """Return a block, in the kernels' way where there are such, and not in float64."""
    by_kernels = has_kernels(hidden.device.type) and hidden.dtype.itemsize <= 4
    return BlockOfKernels(hidden, wanted, head) if by_kernels else Block(hidden, wanted, head)


def blocks_of(hidden: torch.Tensor, labels: torch.Tensor, head: Head) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Split hidden states and labels into blocks of items."""
    yield from zip(hidden.split(head.items_at_once), labels.split(head.items_at_once), strict=True)
