"""Learning-rate schedules: the factor of the learning rate at a step."""

from __future__ import annotations

import math

from finetuning.config.schema import TrainingSettings


def learning_rate_factor(settings: TrainingSettings, step: int, total_steps: int) -> float:
    """Compute the factor of the learning rate at a step. It equals that of transformers.get_scheduler.

    Args:
        settings: `lr_scheduler`, `warmup_steps` and `warmup_ratio`; the ratio is used if the steps are 0.
        step: Optimizer step, from 0.
        total_steps: Steps of the whole run.

    Returns:
        The factor, from 0 to 1.
    """
    warmup = settings.warmup_steps or math.ceil(settings.warmup_ratio * total_steps)
    if step < warmup:
        return step / warmup
    if settings.lr_scheduler == "constant":
        return 1.0
    done = (step - warmup) / max(1, total_steps - warmup)
    if settings.lr_scheduler == "cosine":
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * done)))
    return max(0.0, 1.0 - done)
