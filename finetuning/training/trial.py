"""A trial of a model on two short examples before the first step: it must run, and padding should not change it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from exceptions import ModelError, first_line_of
from finetuning.data.examples import Examples
from finetuning.device.oom import is_out_of_memory
from finetuning.inference.evaluator import Evaluator
from finetuning.models.probes import trial_conditions
from finetuning.types import IGNORED, Batch, RandomKey

_log = logging.getLogger(__name__)
_AMONG = 16  # of so many short examples the longest is tried beside the shortest
_ROUNDING = 1e-4  # largest relative error of hidden states in float32 that counts as rounding
_REFUSALS = (
    TypeError, ValueError, KeyError, AttributeError, RuntimeError, IndexError, ImportError, MemoryError,
)  # fmt: skip


def try_model(evaluator: Evaluator, examples: Examples, seed: int) -> None:
    """Compute the loss of two short examples; warn if their hidden states are others when they are padded together.

    Weights of less than float32 round too much for the comparison, so for them it is left out.

    Args:
        evaluator: Holds the model, on its device, and its task.
        examples: The split to train on.
        seed: Seed of random choices such as masks.

    Raises:
        ModelError: The model cannot compute the task's loss.
    """
    order = np.argsort(examples.sequence_lengths, kind="stable")[:_AMONG]
    pair = [int(order[0]), int(order[-1])]
    try:
        together = _hidden(evaluator, examples, pair, seed)
        if together is None or pair[0] == pair[1] or _rounds(evaluator.model):
            return
        alone = [_hidden(evaluator, examples, [one], seed) for one in pair]
    except _REFUSALS as error:
        if is_out_of_memory(error):
            return  # the run has its own remedies
        reason = first_line_of(error)
        raise ModelError(
            f"이 모델로는 {evaluator.task.name} 태스크의 손실을 계산할 수 없습니다: {reason}",
            where=f"model.name: {evaluator.task.settings.model.name} ({evaluator.model.config.model_type})",
            remedy="태스크에 맞는 종류의 모델인지 확인하고, 맞으면 다른 모델을 고르세요.",
        ) from error
    expected = torch.cat([states for states in alone if states is not None])
    if expected.shape == together.shape and (together - expected).norm() > _ROUNDING * expected.norm():
        _log.warning(
            "%s 모델은 패딩에 따라 계산이 달라져, micro-batch를 나누는 방법에 따라 결과가 조금 다를 수 있습니다.",
            evaluator.model.config.model_type,
        )


def _rounds(model: torch.nn.Module) -> bool:
    return any(p.dtype in (torch.bfloat16, torch.float16) for p in model.parameters())


def _hidden(evaluator: Evaluator, examples: Examples, indices: Sequence[int], seed: int) -> torch.Tensor | None:
    """Compute the loss of examples and return the base model's hidden states of their real tokens, (tokens, width).

    None where the whole model does not run its base model, or that does not return a state for each token.
    """
    batch = evaluator.task.encodes.collate(examples.fetch_sequences(indices), evaluator.tokenizer, RandomKey(seed, 0))
    batch, scores, seen = evaluator.runtime.on_device(batch), evaluator.task.scores, list[torch.Tensor]()

    def see(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
        seen.append(output[0])

    hook = evaluator.model.base_model.register_forward_hook(see)
    try:
        with trial_conditions(evaluator.model):
            scores.loss_sum(scores.forward(evaluator.model, batch), batch)
    finally:
        hook.remove()
    states = next((one for one in seen if one.ndim == 3), None)
    masks = (mask for mask in _real(batch) if states is not None and mask.shape == states.shape[:2])
    mask = next(masks, None)
    return None if mask is None or states is None else states[mask]


def _real(batch: Batch) -> list[torch.Tensor]:
    """Return masks of the real tokens: of the input, and of a target where there is one."""
    mask, labels = batch.inputs.get("attention_mask"), batch.labels
    found = [] if mask is None else [mask.bool()]
    return found if labels is None or labels.ndim != 2 else [*found, labels != IGNORED]
