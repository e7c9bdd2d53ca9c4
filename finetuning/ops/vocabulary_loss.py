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

from typing import Any

import torch

from finetuning.ops.head_gradient import LaterGradient
from finetuning.ops.vocabulary_blocks import Gradients, Head, block_of, blocks_of, is_one_block


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
    fits = is_one_block(len(hidden) * len(weight), _compute_dtype(hidden), hidden.device.type)
    if later is not None and hidden.requires_grad and weight.requires_grad and fits:
        weight = weight.detach()
    else:
        later = None
    loss: torch.Tensor = _LossSum.apply(hidden, weight, bias, labels, smoothing, later)
    return loss


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
            head = Head.of(weight, bias, dtype, len(hidden))
            for part, wanted in blocks_of(hidden.to(dtype), labels, head):
                block = block_of(part, wanted, head)
                losses.append(block.losses)
                if stores:
                    hidden_grads.append(block.backward(Gradients(None, None)))
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
        made = Gradients.of(weight, bias, needs[1:3])
        hidden_grads: list[torch.Tensor] = []
        with torch.autocast(hidden.device.type, enabled=False):
            head = Head.of(weight, bias, dtype, len(hidden))
            blocks = blocks_of(hidden.to(dtype), labels, head)
            for (part, wanted), own in zip(blocks, upstream.split(head.items_at_once), strict=True):
                hidden_grads.append(block_of(part, wanted, head).backward(made, own.contiguous()))
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
        made = Gradients.of(weight, bias, context.needs_input_grad[1:3], [] if later is not None else None)
        hidden_grads: list[torch.Tensor] = []
        with torch.autocast(hidden.device.type, enabled=False):
            head = Head.of(weight, bias, dtype, len(hidden))
            for part, wanted in blocks_of(hidden.to(dtype), labels, head):
                block = block_of(part, wanted, head)
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
