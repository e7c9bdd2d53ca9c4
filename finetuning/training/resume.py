"""What a resumed run may have otherwise than its checkpoint: the number of epochs, and of processes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from exceptions import SettingsError
from finetuning.checkpoints.fingerprint import EPOCHS, WINDOW_SIZE, difference
from finetuning.config.ladder import with_changes
from finetuning.config.schema import Settings, TrainingSettings
from finetuning.korean.particles import with_particle
from finetuning.training.schedules import schedule_of

_log = logging.getLogger(__name__)


def check_epochs(saved: Mapping[str, Any], training: TrainingSettings, done_steps: int, windows: int) -> None:
    """Check a changed number of epochs, and log how it changes the learning rate, whose schedule spans all steps.

    Args:
        saved: The checkpoint's fingerprint.
        training: The settings in force.
        done_steps: Optimizer steps that the checkpoint has done.
        windows: Optimizer steps of one epoch.

    Raises:
        SettingsError: The checkpoint has more steps than the run has now.
    """
    before, total = int(saved[EPOCHS]), windows * training.epochs
    if before == training.epochs:
        return
    if done_steps > total:
        raise SettingsError(
            f"체크포인트는 이미 {done_steps:,}스텝까지 학습했는데, 지금 설정으로는 모두 {total:,}스텝입니다.",
            where=difference(EPOCHS, before, training.epochs),
            remedy="training.epochs를 늘리거나, 더 이전 체크포인트를 --checkpoint_path로 고르세요.",
        )
    old, new = (
        training.learning_rate * schedule_of(training, steps)(done_steps) for steps in (windows * before, total)
    )
    _log.warning(
        "%s. 학습률 스케줄을 전체 %s스텝에 맞춥니다. 다음 스텝의 학습률은 %s 아니라 %.3g입니다.",
        difference(EPOCHS, before, training.epochs), f"{total:,}", with_particle(f"{old:.3g}", "이/가"), new,
    )  # fmt: skip


def with_window_of(saved: Mapping[str, Any], settings: Settings, processes: int) -> Settings:
    """Return settings under which another number of processes trains on the windows of a checkpoint's run.

    Args:
        saved: The checkpoint's fingerprint.
        settings: The settings in force.
        processes: The processes that there are now.

    Returns:
        The settings with as many examples a process as make the window, in micro-batches that are no larger than
        before; unchanged where the window is the same, or does not divide.
    """
    batch, window = settings.data.batch_size, int(saved[WINDOW_SIZE])
    each, rest = divmod(window, processes)
    if rest or each == batch * settings.memory.gradient_accumulation_steps:
        return settings
    batch = next(size for size in range(min(batch, each), 0, -1) if each % size == 0)
    changes = {"data.batch_size": batch, "memory.gradient_accumulation_steps": each // batch}
    _log.info(
        "프로세스가 %d개여서, 한 스텝의 예제 %s개가 그대로이도록 바꿉니다: %s",
        processes, f"{window:,}", ", ".join(f"{key}: {value}" for key, value in changes.items()),
    )  # fmt: skip
    return with_changes(settings, changes)
