"""A model's output layer: whether its outputs are the logits, and how it computes something else for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch

from finetuning.ops.replaced import computing_by

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_REFUSALS = (TypeError, ValueError, KeyError, AttributeError)  # of models that cannot run on a row of tokens
_SCALES = ("final_logit_softcapping", "logits_scaling", "logit_scale", "lm_head_multiplier")


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
