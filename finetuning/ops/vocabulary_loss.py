"""Cross-entropy over a large vocabulary without a (tokens, vocabulary) tensor: logits are computed chunk by chunk.

The gradient with respect to the logits is softmax minus one-hot, so it is known as soon as the logits are. Each chunk
computes its loss and its gradients in the forward pass and then drops its logits, as Liger Kernel does (Hsu et al.
2024). `torch.nn.functional.linear_cross_entropy` of torch 2.13 works the same way, but on a CPU it took twice as long
in bfloat16 and up to nine times as long with float32 sums, ignored autocast, and returned the loss in bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from finetuning.ops.replaced import computing_by

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_REFUSALS = (TypeError, ValueError, KeyError, AttributeError)  # of models that cannot run on a row of tokens
_SCALES = ("final_logit_softcapping", "logits_scaling", "logit_scale", "lm_head_multiplier")
_CHUNK_LOGITS = {"cpu": 2**23}  # few enough for a CPU's cache
_CHUNK_LOGITS_ELSEWHERE = 2**26  # enough to fill a GPU


def chunk_logits(device_type: str) -> int:
    """Return how many logits the loss computes at once on a device of this type (torch's name for it)."""
    return _CHUNK_LOGITS.get(device_type, _CHUNK_LOGITS_ELSEWHERE)


def vocabulary_loss_sum(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, labels: torch.Tensor, smoothing: float = 0.0
) -> torch.Tensor:
    """Compute the cross-entropy summed over all items.

    Args:
        hidden: Last hidden states, shape (items, hidden size).
        weight: Weight of the output layer, shape (vocabulary, hidden size).
        bias: Bias of the output layer, shape (vocabulary,), or None.
        labels: Token ids, int64, shape (items,).
        smoothing: Share of each target that is spread over the whole vocabulary, from 0 to 1.

    Returns:
        A float32 scalar, or float64 if `hidden` is float64.
    """
    loss: torch.Tensor = _LossSum.apply(hidden, weight, bias, labels, smoothing)
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
            projection, shift = weight.to(dtype), bias.to(dtype) if bias is not None else None
            for part, wanted in _chunks(hidden.to(dtype), labels, len(weight)):
                logits = _logits(part, projection, shift)
                losses.append(torch.nn.functional.cross_entropy(logits, wanted, reduction="none"))
                if stores:
                    log_sums = losses[-1] + logits.gather(1, wanted.unsqueeze(1)).squeeze(1)
                    hidden_grads.append(_gradient_product(_errors(logits, log_sums, wanted).to(dtype), projection))
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
        hidden_grads: list[torch.Tensor] = []
        weight_grad = torch.zeros_like(weight) if needs[1] else None
        bias_grad = torch.zeros_like(bias) if bias is not None and needs[2] else None
        with torch.autocast(hidden.device.type, enabled=False):
            projection, shift = weight.to(dtype), bias.to(dtype) if bias is not None else None
            chunks = _chunks(hidden.to(dtype), labels, len(weight))
            weights = upstream.split(max(1, chunk_logits(hidden.device.type) // len(weight)))
            for (part, wanted), own in zip(chunks, weights, strict=True):
                logits = _logits(part, projection, shift)
                error = _errors(logits, logits.logsumexp(-1), wanted).mul_(own.unsqueeze(1))
                if bias_grad is not None:
                    bias_grad += error.sum(0)
                error = error.to(dtype)
                hidden_grads.append(_gradient_product(error, projection))
                if weight_grad is not None:
                    weight_grad += _gradient_product(error.t(), part)
        hidden_grad = torch.cat(hidden_grads).to(hidden.dtype) if needs[0] else None
        return hidden_grad, weight_grad, bias_grad, None


def _errors(logits: torch.Tensor, log_sums: torch.Tensor, wanted: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    """Turn logits, in place, into their gradient: softmax minus one-hot, or minus the smoothed target."""
    error = logits.sub_(log_sums.unsqueeze(1)).exp_()
    error[torch.arange(len(wanted), device=wanted.device), wanted] -= 1.0 - smoothing
    return error.sub_(smoothing / logits.shape[1]) if smoothing else error


class _LossSum(torch.autograd.Function):
    """Autograd function of vocabulary_loss_sum."""

    @staticmethod
    def forward(
        context: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, labels: torch.Tensor,
        smoothing: float,
    ) -> torch.Tensor:  # fmt: skip
        """Compute the loss and its gradients: products in autocast's dtype, accumulated in the weight's dtype.

        Gradients of float16 hidden states are kept in float32 until they are scaled.
        """
        dtype = _compute_dtype(hidden)
        total = hidden.new_zeros((), dtype=torch.promote_types(dtype, torch.float32))
        hidden_grads: list[torch.Tensor] = []
        weight_grad = torch.zeros_like(weight) if context.needs_input_grad[1] else None
        bias_grad = torch.zeros_like(bias) if bias is not None and context.needs_input_grad[2] else None
        with torch.autocast(hidden.device.type, enabled=False):
            projection, shift = weight.to(dtype), bias.to(dtype) if bias is not None else None
            for part, wanted in _chunks(hidden.to(dtype), labels, len(weight)):
                logits = _logits(part, projection, shift)
                log_sums, here = logits.logsumexp(-1), torch.arange(len(part), device=part.device)
                total += (log_sums - (1.0 - smoothing) * logits[here, wanted]).sum()
                if smoothing:
                    total -= smoothing * logits.mean(-1).sum()
                error = _errors(logits, log_sums, wanted, smoothing)
                if bias_grad is not None:
                    bias_grad += error.sum(0)
                error = error.to(dtype)
                hidden_grad = _gradient_product(error, projection)
                hidden_grads.append(hidden_grad.to(torch.promote_types(hidden_grad.dtype, hidden.dtype)))
                if weight_grad is not None:
                    weight_grad += _gradient_product(error.t(), part)
        context.gradients, context.dtype = (torch.cat(hidden_grads), weight_grad, bias_grad), hidden.dtype
        return total

    @staticmethod
    def backward(context: Any, upstream: torch.Tensor) -> Any:
        """Scale the gradients that the forward pass stored."""
        hidden, *others = context.gradients
        del context.gradients
        scaled = [part.mul_(upstream) if part is not None else None for part in others]
        return hidden.mul_(upstream).to(context.dtype), *scaled, None, None


def _compute_dtype(hidden: torch.Tensor) -> torch.dtype:
    """Return autocast's dtype if autocast is on, else the dtype of `hidden`."""
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


def _gradient_product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return left @ right; of float16 factors in float32.

    The loss scale acts on these gradients later, so it can keep them neither from overflowing nor from vanishing: a sum
    over some thousand tokens exceeds float16's 65,504.
    """
    if left.dtype != torch.float16:
        return left @ right
    if left.device.type == "cuda":
        return torch.mm(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()  # other devices have no kernel with another dtype for the result


def _logits(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Compute a chunk's logits in at least float32. The bias is added in the product's dtype, as nn.Linear does."""
    logits = torch.nn.functional.linear(hidden, weight, bias)
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _chunks(hidden: torch.Tensor, labels: torch.Tensor, vocabulary: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Split hidden states and labels into chunks of as many rows as `chunk_logits` allows."""
    rows = max(1, chunk_logits(hidden.device.type) // vocabulary)
    yield from zip(hidden.split(rows), labels.split(rows), strict=True)


# --- a model's head ---


def plain_head(model: PreTrainedModel) -> torch.nn.Linear | None:
    """Return the linear layer whose output is exactly the model's logits, or None if there is no such layer.

    Some models change the output of their head: Gemma 2 caps the logits, BART adds a bias, a head may have an adapter.
    The model runs on four tokens to find out.
    """
    head = model.get_output_embeddings()
    if type(head) is not torch.nn.Linear or "forward" in vars(head):
        return None
    ids = torch.arange(4, device=model.device).remainder(model.config.get_text_config().vocab_size).unsqueeze(0)
    inputs = {"input_ids": ids, **({"decoder_input_ids": ids} if model.config.is_encoder_decoder else {})}
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), _multiplying(model):
            with _output_of(head) as made:
                logits = model(**inputs).logits
            with as_identity(head):
                hidden = model(**inputs).logits
            expected = head(hidden)
    except (RuntimeError, *_REFUSALS):  # code after the head fails on hidden states: BART adds a bias to the logits
        return None
    finally:
        model.train(was_training)
    if logits.is_meta:  # no values to compare, but a tensor that nothing was done to after the head is the same one
        return head if any(logits is output for output in made) or not scales_logits(model) else None
    return head if bool((expected - logits).abs().max() <= 1e-3 * logits.abs().max()) else None


def _multiplying(model: PreTrainedModel) -> AbstractContextManager[None]:
    """Return a context in which weights of several dtypes, such as a trained embedding's, can be multiplied."""
    dtypes = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    is_mixed = len(dtypes) > 1 and model.device.type != "meta"
    return torch.autocast(model.device.type, torch.bfloat16) if is_mixed else nullcontext()


def scales_logits(model: PreTrainedModel) -> bool:
    """Return whether a model's config says that its logits are capped, or multiplied by something but one."""
    config = model.config.get_text_config()
    return any(getattr(config, name, None) not in (None, 1) for name in _SCALES)


@contextmanager
def _output_of(head: torch.nn.Linear) -> Iterator[list[torch.Tensor]]:
    """Collect what a module returns inside the block."""
    made: list[torch.Tensor] = []
    hook = head.register_forward_hook(lambda _module, _inputs, output: made.append(output))
    try:
        yield made
    finally:
        hook.remove()


@contextmanager
def computing(head: torch.nn.Linear, compute: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Make a model's head compute something else inside the block: the weight of a sharded head is whole only there.

    Args:
        head: The head, which is plain.
        compute: From hidden states, (items, hidden size), to values, (n,). The model returns them as its logits, as if
            they were those of n items in a vocabulary of one.
    """

    def forward(input: torch.Tensor) -> torch.Tensor:
        return compute(input.flatten(0, -2)).view(*[1] * (input.ndim - 2), -1, 1)

    with computing_by({head: forward}):
        yield


@contextmanager
def as_identity(head: torch.nn.Linear) -> Iterator[None]:
    """Replace a model's head by the identity inside the block, so that the model returns hidden states as logits."""
    with computing_by({head: lambda input: input}):
        yield
