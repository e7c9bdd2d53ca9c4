"""A trial of a model on two short examples before the first step: it must run, and padding must not change it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch

from exceptions import ModelError, first_line_of
from finetuning.data.examples import Examples
from finetuning.device.oom import is_out_of_memory
from finetuning.inference.evaluator import Evaluator
from finetuning.models.probes import trial_conditions
from finetuning.types import RandomKey

_log = logging.getLogger(__name__)
_AMONG = 16  # of so many short examples the longest is tried beside the shortest
_ROUNDING = 1e-3  # relative; in float32 padding was measured to change losses by 1e-6, and by 1e-2 where it is seen
_REFUSALS = (TypeError, ValueError, KeyError, AttributeError, RuntimeError, IndexError, ImportError, MemoryError)


def try_model(evaluator: Evaluator, examples: Examples, seed: int) -> None:
    """Compute the loss of two short examples; warn if that of both together is not the sum of their own.

    Weights of less than float32 round too much for the comparison, so for them it is left out.

    Args:
        evaluator: Holds the model, on its device, and its task.
        examples: The split to train on.
        seed: Seed of random choices such as masks.

    Raises:
        ModelError: The model cannot compute the task's loss.
    """
    order = np.argsort(examples.lengths, kind="stable")[:_AMONG]
    pair = [int(order[0]), int(order[-1])]
    try:
        together = _loss(evaluator, examples, pair, seed)
        if _rounds(evaluator.model) or pair[0] == pair[1]:
            return
        alone = sum(_loss(evaluator, examples, [one], seed) for one in pair)
    except _REFUSALS as error:
        if is_out_of_memory(error):
            return  # the run has its own remedies
        reason = first_line_of(error)
        raise ModelError(
            f"이 모델로는 {evaluator.task.name} 태스크의 손실을 계산할 수 없습니다: {reason}",
            where=f"model.name: {evaluator.task.settings.model.name} ({evaluator.model.config.model_type})",
            remedy="태스크에 맞는 종류의 모델인지 확인하고, 맞으면 다른 모델을 고르세요.",
        ) from error
    if abs(together - alone) > _ROUNDING * abs(alone):
        _log.warning(
            "%s 모델은 패딩에 따라 손실이 달라집니다(%.4f 대신 %.4f). micro-batch를 나누는 방법에 따라 결과가 "
            "조금 다를 수 있습니다.",
            evaluator.model.config.model_type, alone, together,
        )  # fmt: skip


def _rounds(model: torch.nn.Module) -> bool:
    return any(p.dtype in (torch.bfloat16, torch.float16) for p in model.parameters())


def _loss(evaluator: Evaluator, examples: Examples, indices: Sequence[int], seed: int) -> float:
    batch = evaluator.task.encodes.collate(examples.fetch(indices), evaluator.tokenizer, RandomKey(seed, 0))
    batch, scores = evaluator.runtime.on_device(batch), evaluator.task.scores
    with trial_conditions(evaluator.model):
        return float(scores.loss_sum(scores.forward(evaluator.model, batch), batch))
