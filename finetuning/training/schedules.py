"""Learning-rate schedules: the factor of the learning rate at a step, by transformers.get_scheduler."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from exceptions import SettingsError
from finetuning.config.schema import TrainingSettings

Schedule = Callable[[int], float]  # optimizer step, from 0 → factor of the learning rate

_DECAYED = 0.1  # of the learning rate, or of the steps, where `lr_scheduler_options` says nothing else
_END_OPTIONS = {"min_lr", "min_lr_rate"}


def schedule_of(settings: TrainingSettings, total_steps: int) -> Schedule:
    """Return the schedule that `training.lr_scheduler` names.

    Args:
        settings: `lr_scheduler`, its options, and the warm-up; `warmup_ratio` is used if `warmup_steps` is 0.
        total_steps: Steps of the whole run.

    Returns:
        The schedule.

    Raises:
        SettingsError: `training.lr_scheduler_options` does not go with the schedule.
    """
    import torch
    from transformers import get_scheduler

    warmup = settings.warmup_steps or math.ceil(settings.warmup_ratio * total_steps)
    name = "constant_with_warmup" if settings.lr_scheduler == "constant" else settings.lr_scheduler
    # schedules read the learning rate of their optimizer, and change it: here that of a stand-in
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=settings.learning_rate)
    options = {**_defaults(settings, total_steps), **settings.lr_scheduler_options}
    try:
        made = get_scheduler(name, optimizer, warmup, total_steps, scheduler_specific_kwargs=options)
        factor: Schedule = made.lr_lambdas[0]
        factor(0)
    except (TypeError, ValueError) as error:
        raise SettingsError(
            f"{settings.lr_scheduler} 스케줄에 쓸 수 없는 인자입니다: {error}",
            where=f"training.lr_scheduler_options: {settings.lr_scheduler_options}",
            remedy="transformers.get_scheduler의 문서에서 그 스케줄의 인자를 확인하거나, {}로 두세요.",
        ) from None
    if settings.lr_scheduler in ("constant", "constant_with_warmup") and settings.lr_scheduler_options:
        raise SettingsError(
            f"{settings.lr_scheduler} 스케줄은 인자를 받지 않습니다.",
            where=f"training.lr_scheduler_options: {settings.lr_scheduler_options}",
            remedy="training.lr_scheduler_options를 {}로 두세요.",
        )
    return factor


def _defaults(settings: TrainingSettings, total_steps: int) -> Mapping[str, Any]:
    """Return the options that a schedule cannot do without, where the settings give none."""
    given = settings.lr_scheduler_options.keys()
    if settings.lr_scheduler == "cosine_with_min_lr" and not _END_OPTIONS & given:
        return {"min_lr_rate": _DECAYED}
    if settings.lr_scheduler == "warmup_stable_decay" and "num_decay_steps" not in given:
        return {"num_decay_steps": math.ceil(_DECAYED * total_steps)}
    return {}
