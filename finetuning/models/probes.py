"""Trials of a loaded model: which ways of leaving padding out keep its hidden states the same.

Each trial runs a few tokens through the model in the ordinary way and in the way under trial, and compares. All trials
run under the same conditions (`trial_conditions`) and are judged by the same limits (`ROUNDING`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch

from finetuning.device.oom import is_out_of_memory
from finetuning.device.sharding import dtypes_of, is_sharded, run_in_parts
from finetuning.ops.attention_ways import Attend
from finetuning.ops.dense_attention import causal_tokens, dense_tokens, layers_of, without_padding
from finetuning.types import DenseTokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The largest relative error, by dtype, that counts as rounding. After SmolLM2's 30 layers rounding in bfloat16 was
# measured at 0.05, and wrong positions at 0.8.
ROUNDING = {torch.float64: 1e-4, torch.float32: 1e-4, torch.bfloat16: 0.2, torch.float16: 0.2}
# Errors of a forward pass if an architecture does not support the method under trial.
REFUSALS = (TypeError, ValueError, LookupError, AttributeError, RuntimeError)


@dataclass(frozen=True)
class Trial:
    """The hidden states (or logits) of one trial, each (tokens, width), for real tokens alone.

    Attributes:
        expected: Computed in the ordinary way.
        found: Computed by the method under trial.
        beside: Computed like `found`, with other tokens in the first sequence.
        first: Number of tokens in the first sequence.
    """

    expected: torch.Tensor
    found: torch.Tensor
    beside: torch.Tensor
    first: int

    def passes(self, limit: float) -> bool:
        """Return whether sequences do not see each other and hidden states differ by rounding alone.

        Masked tokens are multiplied by zero, so other tokens in the first sequence must not change one bit of the
        sequences after it. The ordinary way adds up in another order, so it is compared within a limit.

        Args:
            limit: The largest relative error that counts as rounding.

        Returns:
            Whether both hold.
        """
        if self.found.shape != self.expected.shape:
            return False
        if not torch.equal(self.found[self.first :], self.beside[self.first :]):
            return False
        error = (self.found - self.expected).float().norm()
        return bool(error <= limit * self.expected.float().norm())


def drops_padding(model: PreTrainedModel, attend: Attend | None = None) -> bool:
    """Return whether an encoder's layers can compute real tokens alone (`without_padding`).

    Models with relative positions (DeBERTa, T5), attention windows (Longformer) or their own attention code cannot.

    Args:
        model: The encoder. On the meta device there are no values to compare, so its class attribute decides.
        attend: The way to compute attention; None for padded rows.

    Returns:
        Whether the trial passed.
    """
    return _encodes_alike(model, lambda mask: dense_tokens(mask, attend))


def embeds_without_padding(model: PreTrainedModel, attend: Attend | None = None) -> bool:
    """Return whether an encoder that drops padding can look up its embeddings for real tokens alone, too.

    Models cannot that compute more of a text's embeddings than a sum of look-ups token by token, and its norm.

    Args:
        model: The encoder, as for drops_padding.
        attend: The way to compute attention; None for padded rows.

    Returns:
        Whether the trial passed.
    """
    return _encodes_alike(model, lambda mask: replace(dense_tokens(mask, attend), embeds=True))


def reads_first_tokens(model: PreTrainedModel) -> bool:
    """Return whether an encoder's head reads the first token of a text alone, so that its last layer need no other.

    Heads of classifiers do. A layer cannot leave tokens out that normalises what it is given before attention.

    Args:
        model: The encoder with its head, as for drops_padding.

    Returns:
        Whether the trial passed.
    """
    if not _has_plain_attention(model):
        return False

    def logits(ids: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        found: torch.Tensor = model(input_ids=ids, attention_mask=mask).logits
        return found

    def tokens_of(mask: torch.Tensor) -> DenseTokens:
        return replace(dense_tokens(mask), firsts=True)

    if model.device.type == "meta":
        return _claims_attention_backend(model) and layers_of(model) is not None and _fits(model, logits, tokens_of)

    def run() -> Trial:
        ids, others, mask = _three_texts(model)
        expected = logits(ids, mask)
        with without_padding(model, tokens_of(mask)):
            return Trial(expected, logits(ids, mask), logits(others, mask), first=1)

    return _succeeds(model, run)


def _encodes_alike(model: PreTrainedModel, tokens_of: Callable[[torch.Tensor], DenseTokens]) -> bool:
    """Return whether an encoder has the same hidden states on a dense row; tokens_of: makes the maps of a mask."""
    if not _has_plain_attention(model):
        return False

    def states(ids: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        found: torch.Tensor = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
        return found

    if model.device.type == "meta":
        return _claims_attention_backend(model) and layers_of(model) is not None and _fits(model, states, tokens_of)

    def run() -> Trial:
        ids, others, mask = _three_texts(model)
        expected = states(ids, mask)[mask == 1]
        with without_padding(model, tokens_of(mask)):
            found, beside = states(ids, mask)[mask == 1], states(others, mask)[mask == 1]
        return Trial(expected, found, beside, first=int(mask[0].sum()))

    return _succeeds(model, run)


def _three_texts(model: PreTrainedModel) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ids of three texts, ids in which the first text is another, and their mask: (3, 9) each."""
    padding = model.config.get_text_config().pad_token_id or 0
    mask = torch.ones(3, 9, dtype=torch.long, device=model.device)
    mask[0, 4:] = mask[2, 7:] = 0
    ids = torch.arange(27, device=model.device).view(3, 9).remainder(model.config.get_text_config().vocab_size)
    ids = torch.where(ids == padding, ids + 1, ids).masked_fill(mask == 0, padding)
    others = ids.clone()
    others[0, :4] = ids[0, :4].flip(0)
    return ids, others, mask


def _fits(
    model: PreTrainedModel,
    read: Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor],
    tokens_of: Callable[[torch.Tensor], DenseTokens],
) -> bool:
    """Return whether what is read of an encoder on the meta device has the same shape on a dense row."""
    mask = torch.ones(2, 3, dtype=torch.long)
    tokens = tokens_of(mask).mapped(lambda tensor: tensor.to(model.device))
    ids = torch.zeros_like(mask, device=model.device)
    try:
        with torch.no_grad():
            expected = read(ids, None)
            with without_padding(model, tokens):
                return read(ids, None).shape == expected.shape
    except REFUSALS:
        return False


def attends_within_sequences(model: PreTrainedModel, max_length: int, attend: Attend | None = None) -> bool:
    """Return whether a causal model can compute attention within each sequence of one dense row.

    Models with their own attention code cannot, nor models with attention chunks shorter than a sequence. Where an
    attention window is, the first sequence of the trial is longer than it.

    Args:
        model: A causal model. On the meta device there are no values to compare, so its class attribute decides.
        max_length: Tokens of the longest sequence.
        attend: The way to compute attention; None for padded rows.

    Returns:
        Whether the trial passed.
    """
    text = model.config.get_text_config()
    window, chunk = (getattr(text, name, None) for name in ("sliding_window", "attention_chunk_size"))
    if not _has_plain_attention(model) or (chunk is not None and chunk < max_length) or not _runs_base_model(model):
        return False
    if model.device.type == "meta":
        return _claims_attention_backend(model)

    def run() -> Trial:
        first = window + 3 if window is not None and window < max_length else 7
        lengths = [first, 5, 1, 5]
        ids = torch.arange(sum(lengths), device=model.device).remainder(text.vocab_size)
        others = torch.cat([ids[:first].flip(0), ids[first:]])
        positions = torch.cat([torch.arange(length, device=model.device) for length in lengths])[None]

        def hidden(ids: torch.Tensor, **inputs: torch.Tensor) -> torch.Tensor:
            states: torch.Tensor = model.base_model(input_ids=ids[None], use_cache=False, **inputs).last_hidden_state[0]
            return states

        expected = torch.cat([hidden(one) for one in ids.split(lengths)])
        with without_padding(model, causal_tokens(lengths, attend).mapped(lambda tensor: tensor.to(model.device))):
            found, beside = hidden(ids, position_ids=positions), hidden(others, position_ids=positions)
        return Trial(expected, found, beside, first)

    return _succeeds(model, run)


def isolates(model: PreTrainedModel) -> bool:
    """Return whether a causal model keeps the sequences of one row apart by positions that start again.

    transformers derives the mask from `position_ids` where there is no attention_mask and no cache. An architecture
    that does not (recurrent layers, for instance) would leak from one sequence into the next. On the meta device there
    are no values to compare; the answer is yes.
    """
    if model.device.type == "meta":
        return True

    def run() -> Trial:
        lengths = [5, 7]
        ids = torch.arange(sum(lengths), device=model.device).remainder(model.config.get_text_config().vocab_size)
        others = torch.cat([ids[:5].flip(0), ids[5:]])
        positions = torch.cat([torch.arange(length, device=model.device) for length in lengths])[None]

        def logits(ids: torch.Tensor, **inputs: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = model(input_ids=ids[None], use_cache=False, **inputs).logits[0]
            return found

        expected = torch.cat([logits(one) for one in ids.split(lengths)])
        found, beside = logits(ids, position_ids=positions), logits(others, position_ids=positions)
        return Trial(expected, found, beside, first=5)

    return _succeeds(model, run)


def _has_plain_attention(model: PreTrainedModel) -> bool:
    """Return whether attention is torch's own, in a model of one stack.

    A trial does not show capped scores (Gemma 2) or attention sinks: their effect depends on how large scores are.
    """
    config: Any = model.base_model.config
    is_capped = getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None
    return config._attn_implementation == "sdpa" and not config.is_encoder_decoder and not is_capped


def _reaches(model: PreTrainedModel, max_length: int) -> bool:
    """Return whether every layer of a causal model attends to all tokens of a sequence, however long it may be."""
    config = model.config.get_text_config()
    limits = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    windows = [tokens for tokens in limits if tokens is not None]
    is_uniform = set(getattr(config, "layer_types", None) or ()) <= {"full_attention"}
    return all(tokens >= max_length for tokens in windows) and (is_uniform or bool(windows))


class _Reached(Exception):
    """Ends a forward pass: the base model was called."""


def _runs_base_model(model: PreTrainedModel) -> bool:
    """Return whether the whole model runs by way of `base_model`, which hands the sequences to the layers.

    OPT's calls the decoder inside it, so only such models run a whole pass here.
    """

    is_reached, stops = False, not is_sharded(model)  # a pass that is broken off would have to be forgotten

    def reached(*_: object) -> None:
        nonlocal is_reached
        is_reached = True
        if stops:
            raise _Reached

    hook = model.base_model.register_forward_pre_hook(reached)
    is_meta = model.device.type == "meta"  # no values are computed there, and no conditions are needed
    try:
        with torch.no_grad() if is_meta else trial_conditions(model):
            model(input_ids=torch.arange(4, device=model.device)[None], use_cache=False)
    except _Reached:
        pass
    except REFUSALS as error:
        if is_out_of_memory(error):
            raise
    finally:
        hook.remove()
    # a bare model is its own base
    return is_reached and (model.base_model is not model or model.get_output_embeddings() is None)


def _claims_attention_backend(model: PreTrainedModel) -> bool:
    """Return whether the architecture says that its attention can be replaced through transformers' interface."""
    return bool(getattr(model.base_model, "_supports_attention_backend", False))


# --- the harness ---


def _succeeds(model: PreTrainedModel, run: Callable[[], Trial]) -> bool:
    """Return whether a trial passes; False if the model refuses it. Memory that runs out is raised instead."""
    with trial_conditions(model):
        try:
            trial = run()
            return trial.passes(ROUNDING[torch.bfloat16 if _has_mixed_dtypes(model) else trial.expected.dtype])
        except REFUSALS as error:
            if is_out_of_memory(error):
                raise
            return False


@contextmanager
def trial_conditions(model: PreTrainedModel) -> Iterator[None]:
    """Run the block in evaluation mode, without gradients or autocast, in full float32, from one fixed random state.

    The verdict must depend on the model alone: under TF32 rounding exceeds the limit for float32. Weights of several
    dtypes, as of an adapter beside its base, need autocast to be multiplied; it is bfloat16, whose limit is larger.
    Afterwards the model's mode, the precision settings and the random state are as they were.

    Args:
        model: The model under trial.
    """
    was_training = model.training
    model.eval()
    try:
        with (
            torch.no_grad(),
            torch.autocast(model.device.type, torch.bfloat16, enabled=_has_mixed_dtypes(model)),
            run_in_parts(model),
            _full_float32(),
            _fixed_random_state(model.device),
        ):
            yield
    finally:
        model.train(was_training)


def _has_mixed_dtypes(model: PreTrainedModel) -> bool:
    """Return whether the weights have several floating-point dtypes."""
    return len(dtypes_of(model)) > 1


@contextmanager
def _full_float32() -> Iterator[None]:
    """Compute float32 matrix products and convolutions without TF32 or bfloat16 inside the block."""
    cudnn, mkldnn = cast(Any, torch.backends.cudnn), cast(Any, torch.backends.mkldnn)
    parts: tuple[Any, ...] = (torch.backends.cuda.matmul, cudnn.conv, mkldnn.matmul, mkldnn.conv)
    before = [part.fp32_precision for part in parts]
    try:
        for part in parts:
            part.fp32_precision = "ieee"
        yield
    finally:
        for part, precision in zip(parts, before, strict=True):
            part.fp32_precision = precision


@contextmanager
def _fixed_random_state(device: torch.device) -> Iterator[None]:
    """Draw from one fixed random state inside the block, on the CPU and on a CUDA or XPU `device`."""
    on_card = device.type in ("cuda", "xpu")
    with torch.random.fork_rng([device] if on_card else [], device_type=device.type if on_card else "cuda"):
        torch.random.default_generator.manual_seed(0)  # torch.manual_seed would seed every card as well
        if on_card:
            getattr(torch, device.type).manual_seed(0)
        yield
