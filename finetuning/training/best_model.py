"""The best model of a run: saved as its result when an evaluation finds it, also on a disk that fills."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from exceptions import ResourceError
from finetuning.checkpoints.store import CheckpointStore
from finetuning.device.runtime import Runtime
from finetuning.training.state import TrainingState

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)


class BestModelSaver(Protocol):
    """Saves the model as it is now as the result of the run."""

    def __call__(self, model: PreTrainedModel) -> None: ...


@dataclass(frozen=True)
class _Lost:
    """A best model that the disk did not take."""

    step: int
    metric: float
    reason: str


class BestModel:
    """Saves the best model so far. A disk that does not take it does not end the run; `check` tells of it at the end.

    Args:
        save: Writes the model; called on the main process alone.
        store: The checkpoints of the run.
        runtime: The group of processes, which all have to know whether the model was saved.
    """

    def __init__(self, save: BestModelSaver, store: CheckpointStore, runtime: Runtime) -> None:
        self._save, self._store, self._runtime = save, store, runtime
        self._lost: _Lost | None = None

    def keep(self, model: PreTrainedModel, state: TrainingState, metric: float, greater_is_better: bool) -> None:
        """Save a model whose metric is better than that of the one in the folder, and record it in the state.

        Where it cannot be saved the state goes on naming the model that is in the folder.
        """
        reason = self._save_on_main(model, state.step)
        state.evaluations_since_best = 0
        lost, is_lost = self._lost, bool(self._runtime.maximum(float(reason is not None)))
        if lost is None or (metric >= lost.metric if greater_is_better else metric <= lost.metric):
            self._lost = _Lost(state.step, metric, reason or "") if is_lost else None
        if is_lost:
            return
        state.best_metric, state.best_step = metric if math.isfinite(metric) else None, state.step

    def check(self, state: TrainingState) -> None:
        """Tell at the end of a run that the best model is not the one in the folder.

        Args:
            state: The final state.

        Raises:
            ResourceError: The model can still be had from a checkpoint, or there is none at all.
        """
        lost = self._lost
        if lost is None:
            return
        checkpoint, newest = self._store.path_of(lost.step), self._store.newest()
        what = f"가장 좋은 모델(스텝 {lost.step:,}, {lost.metric:.4f})을 저장하지 못했습니다. {lost.reason}".strip()
        if checkpoint.is_dir():
            remedy = (
                f"공간을 비운 뒤 --resume --checkpoint_path {checkpoint} 플래그로 이어 가면 그 모델을 다시 평가하고 "
                "저장합니다."
            )
        elif state.best_step > 0:
            _log.warning("%s 저장한 모델은 스텝 %s의 것입니다.", what, f"{state.best_step:,}")
            return
        elif newest is not None:
            remedy = "공간을 비운 뒤 --resume으로 이어 가면 마지막 체크포인트의 모델을 다시 평가하고 저장합니다."
        else:
            remedy = "공간을 비우거나 --output_dir로 다른 디스크의 폴더를 골라 처음부터 다시 학습하세요."
        raise ResourceError(what, where=str(self._store.folder.parent), remedy=remedy)

    def _save_on_main(self, model: PreTrainedModel, step: int) -> str | None:
        """Return why the model could not be saved, or None."""
        if not self._runtime.is_main:
            return None
        try:
            self._save(model)
        except ResourceError as error:
            _log.warning(
                "스텝 %s: %s (%s) 학습을 계속하고, 더 나은 모델이 나오면 다시 저장합니다.",
                f"{step:,}", error.what, error.where,
            )  # fmt: skip
            return error.what
        return None
