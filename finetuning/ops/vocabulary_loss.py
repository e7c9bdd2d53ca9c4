"""Cross-entropy over a large vocabulary without a (tokens, vocabulary) tensor: logits are computed block by block.

The gradient with respect to the logits is softmax minus one-hot, so it is known as soon as the logits are. Each block
of items computes its loss and its gradients in the forward pass and then drops its logits, as Liger Kernel does (Hsu et
al. 2024). On a CPU a block's logits are computed in tiles of the vocabulary that fit its cache, and kept in the
product's dtype until their sum is known, so that the head's gradient, 671 MB for 262,144 pieces and 640 numbers each,
is written once a block and not once in the few items whose logits fit the cache. On a GPU kernels of our own read a
block's logits (vocabulary_kernels.py): of 57 ms for the loss of 8,192 items on an H200 (width 2,048, 128,256 pieces)
torch's operators took 40, and the products 17.
`torch.nn.functional.linear_cross_entropy` of torch 2.13 works on chunks, too, but on a CPU it took twice as long in
bfloat16 and up to nine times as long with float32 sums, ignored autocast, and returned the loss in bfloat16.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch

from exceptions import first_line_of
from finetuning.ops.head_gradient import LaterGradient, Tile, gradient_product

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


def items_with_all_logits(device_type: str, vocabulary: int) -> int:
    """Return of how many items all logits should be computed at once where they are needed in one piece."""
    return max(1, (2**23 if device_type == "cpu" else 2**26) // vocabulary)


def vocabulary_loss_sum(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, labels: torch.Tensor,
    smoothing: float = 0.0, later: LaterGradient | None = None,
) -> torch.Tensor:  # fmt: skip
    """Compute the cross-entropy summed over all items.

    Args:
        hidden: Last hidden states, shape (items, hidden size).
        weight: Weight of the output layer, shape (vocabulary, hidden size).
        bias: Bias of the output layer, shape (vocabulary,), or None.
        labels: Token ids, int64, shape (items,).
        smoothing: Share of each target that is spread over the whole vocabulary, from 0 to 1.
        later: Computes the weight's gradient once the backward pass has ended, if all items fit one block.

    Returns:
        A float32 scalar, or float64 if `hidden` is float64.
    """
    if later is not None and hidden.requires_grad and weight.requires_grad and _is_one_block(hidden, weight):
        weight = weight.detach()
    else:
        later = None
    loss: torch.Tensor = _LossSum.apply(hidden, weight, bias, labels, smoothing, later)
    return loss


def _is_one_block(hidden: torch.Tensor, weight: torch.Tensor) -> bool:
    """Return whether the logits of all items are kept at once."""
    return len(hidden) * len(weight) * _compute_dtype(hidden).itemsize <= _block_bytes(hidden.device.type)


def vocabulary_losses(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, labels: torch.Tensor
) -> torch.Tensor:
    """Compute the cross-entropy of each item, for evaluation and for losses that weigh the items by each other.

    Args:
        hidden: As for vocabulary_loss_sum.
        weight: As for vocabulary_loss_sum.
        bias: As for vocabulary_loss_sum.
        labels: As for vocabulary_loss_sum.

    Returns:
        Shape (items,), float32, or float64 if `hidden` is float64.
    """
    losses: torch.Tensor = _Losses.apply(hidden, weight, bias, labels)
    return losses


class _Losses(torch.autograd.Function):
    """Autograd function of vocabulary_losses.

    The gradient of an item's hidden state is linear in the item's own weight, so the forward pass computes it and the
    backward pass scales it. That of a trained head sums over items whose weights are known in the backward pass alone:
    there the logits are computed again.
    """

    @staticmethod
    def forward(
        context: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, labels: torch.Tensor
    ) -> torch.Tensor:
        """Compute the losses, and with a frozen head the gradients of the hidden states."""
        trains_head = context.needs_input_grad[1] or (bias is not None and context.needs_input_grad[2])
        stores = context.needs_input_grad[0] and not trains_head
        dtype = _compute_dtype(hidden)
        losses: list[torch.Tensor] = []
        hidden_grads: list[torch.Tensor] = []
        with torch.autocast(hidden.device.type, enabled=False):
            head = _Head.of(weight, bias, dtype, len(hidden))
            for part, wanted in _blocks(hidden.to(dtype), labels, head):
                block = _block_of(part, wanted, head)
                losses.append(block.losses)
                if stores:
                    hidden_grads.append(block.backward(_Gradients(None, None)))
        context.compute_dtype, context.hidden_dtype, context.stores = dtype, hidden.dtype, stores
        if stores:
            context.save_for_backward(torch.cat(hidden_grads))
        elif trains_head:
            context.save_for_backward(hidden, weight, bias, labels)
        return torch.cat(losses)

    @staticmethod
    def backward(context: Any, upstream: torch.Tensor) -> Any:
        """Weigh each item's gradient."""
        if context.stores:
            (hidden_grad,) = context.saved_tensors
            return (hidden_grad * upstream.unsqueeze(1)).to(context.hidden_dtype), None, None, None
        hidden, weight, bias, labels = context.saved_tensors
        dtype, needs = context.compute_dtype, context.needs_input_grad
        made = _Gradients.of(weight, bias, needs[1:3])
        hidden_grads: list[torch.Tensor] = []
        with torch.autocast(hidden.device.type, enabled=False):
            head = _Head.of(weight, bias, dtype, len(hidden))
            blocks = _blocks(hidden.to(dtype), labels, head)
            for (part, wanted), own in zip(blocks, upstream.split(head.items_at_once), strict=True):
                hidden_grads.append(_block_of(part, wanted, head).backward(made, own.contiguous()))
        hidden_grad = torch.cat(hidden_grads).to(hidden.dtype) if needs[0] else None
        return hidden_grad, made.weight, made.bias, None


class _LossSum(torch.autograd.Function):
    """Autograd function of vocabulary_loss_sum."""

    @staticmethod
    def forward(
        context: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, labels: torch.Tensor,
        smoothing: float, later: LaterGradient | None,
    ) -> torch.Tensor:  # fmt: skip
        """Compute the loss and its gradients: products in autocast's dtype, accumulated in the weight's dtype.

        Gradients of float16 hidden states are kept in float32 until they are scaled.
        """
        dtype = _compute_dtype(hidden)
        total = hidden.new_zeros((), dtype=torch.promote_types(dtype, torch.float32))
        made = _Gradients.of(weight, bias, context.needs_input_grad[1:3], [] if later is not None else None)
        hidden_grads: list[torch.Tensor] = []
        with torch.autocast(hidden.device.type, enabled=False):
            head = _Head.of(weight, bias, dtype, len(hidden))
            for part, wanted in _blocks(hidden.to(dtype), labels, head):
                block = _block_of(part, wanted, head)
                total += block.losses.sum()
                if smoothing:
                    total += smoothing * (block.chosen - block.means()).sum()
                hidden_grad = block.backward(made, smoothing=smoothing)
                hidden_grads.append(hidden_grad.to(torch.promote_types(hidden_grad.dtype, hidden.dtype)))
        context.gradients, context.dtype = (torch.cat(hidden_grads), made.weight, made.bias), hidden.dtype
        context.later, context.tiles = later, made.tiles
        return total

    @staticmethod
    def backward(context: Any, upstream: torch.Tensor) -> Any:
        """Scale the gradients that the forward pass stored."""
        hidden, *others = context.gradients
        del context.gradients
        if context.later is not None:
            context.later.keep(context.tiles, upstream)
            del context.tiles
        scaled = [part.mul_(upstream) if part is not None else None for part in others]
        return hidden.mul_(upstream).to(context.dtype), *scaled, None, None, None


def _compute_dtype(hidden: torch.Tensor) -> torch.dtype:
    """Return autocast's dtype if autocast is on, else the dtype of `hidden`."""
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


@dataclass(frozen=True)
class _Head:
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
    def of(cls, weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype, items: int) -> _Head:
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


class _Gradients:
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
    ) -> _Gradients:
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


class _Block:
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

    def __init__(self, hidden: torch.Tensor, wanted: torch.Tensor, head: _Head) -> None:
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

    def backward(self, made: _Gradients, weights: torch.Tensor | None = None, smoothing: float = 0.0) -> torch.Tensor:
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


class _BlockOfKernels:
    """The same by kernels of our own: the logits of the whole vocabulary become gradients in place.

    Args:
        hidden: As of _Block.
        wanted: As of _Block.
        head: As of _Block; a tile of it is the whole vocabulary.

    Attributes:
        losses: As of _Block, float32.
        chosen: As of _Block, float32.
    """

    def __init__(self, hidden: torch.Tensor, wanted: torch.Tensor, head: _Head) -> None:
        from finetuning.ops.vocabulary_kernels import sums_of

        self._hidden, self._wanted = hidden, wanted
        ((_, self._weight, bias),) = head.tiles()
        self._logits: torch.Tensor | None = torch.nn.functional.linear(hidden, self._weight, bias)
        self._sums = sums_of(self._logits, wanted)
        self.losses, self.chosen = self._sums.losses, self._sums.chosen

    def means(self) -> torch.Tensor:
        """Return each item's mean logit, (items,)."""
        return self._sums.means

    def backward(self, made: _Gradients, weights: torch.Tensor | None = None, smoothing: float = 0.0) -> torch.Tensor:
        """Do what `_Block.backward` does."""
        from finetuning.ops.vocabulary_kernels import turn_into_gradients

        error, self._logits = self._logits, None
        assert error is not None
        turn_into_gradients(error, self._wanted, self._sums.log_sums, weights, smoothing)
        made.add(0, error, self._hidden)
        made.end_block()
        return gradient_product(error, self._weight)


def _block_of(hidden: torch.Tensor, wanted: torch.Tensor, head: _Head) -> _Block | _BlockOfKernels:
    """Return a block, in the kernels' way where there are such, and not in float64."""
    by_kernels = has_kernels(hidden.device.type) and hidden.dtype.itemsize <= 4
    return _BlockOfKernels(hidden, wanted, head) if by_kernels else _Block(hidden, wanted, head)


def _blocks(hidden: torch.Tensor, labels: torch.Tensor, head: _Head) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Split hidden states and labels into blocks of items."""
    yield from zip(hidden.split(head.items_at_once), labels.split(head.items_at_once), strict=True)
