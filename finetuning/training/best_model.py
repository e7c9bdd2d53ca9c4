"""The best model of a run: saved as its result when an evaluation finds it, also on a disk that fills."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from exceptions import ResourceError
from finetuning.checkpoints.store import CheckpointStore
from finetuning.device.runtime import Runtime
from finetuning.device.sharding import Gathering, is_sharded
from finetuning.files import write_json
from finetuning.training.state import TrainingState

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)
_RECORD = "best.json"


def metric_of(metrics: Mapping[str, float], name: str) -> float:
    """Return the metric that models are compared by.

    Args:
        metrics: The metrics of an evaluation.
        name: The metric's name.

    Returns:
        The metric; NaN where the loss is NaN or Inf. Such a model gives no scores, and what is counted as its accuracy
        is that of the first label, which may well be higher than that of the models before.
    """
    return metrics[name] if math.isfinite(metrics.get("loss", 0.0)) else math.nan


class BestModelSaver(Protocol):
    """Saves the model as it is now as the result of the run; weights: its weights, where it is sharded."""

    def __call__(self, model: PreTrainedModel, weights: Gathering | None) -> None: ...


@dataclass(frozen=True)
class _Lost:
    """A best model that could not be saved."""

    step: int
    metric: float
    reason: str


@dataclass(frozen=True)
class _Recorded:
    """The model in the folder of the run.

    Attributes:
        step: Its step.
        metric: Its validation metric; None where that was not finite.
    """

    step: int
    metric: float | None

    def is_better_than(self, metric: float | None, greater_is_better: bool) -> bool:
        """Return whether its metric is strictly better than another."""
        if self.metric is None or metric is None or not math.isfinite(metric):
            return self.metric is not None
        return self.metric > metric if greater_is_better else self.metric < metric


class BestModel:
    """Saves the best model so far. A failing disk does not end the run; `check` reports it at the end.

    `best.json` beside the model records its step and metric. A run that goes back to an earlier checkpoint forgets a
    better model that came later; the record keeps that model from being replaced by a worse one.

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

        If it cannot be saved, the state keeps naming the model in the folder. If the folder has a better one, of a
        later step that the run went back from, that one stays and only the state follows the run.
        """
        recorded = self._recorded()
        if recorded is not None and recorded.is_better_than(metric, greater_is_better):
            _log.warning(
                "이미 저장된 스텝 %s의 모델(%.4f)이 스텝 %s의 모델(%.4f)보다 좋으므로 바꾸지 않습니다.",
                f"{recorded.step:,}", recorded.metric, f"{state.step:,}", metric,
            )  # fmt: skip
            state.evaluations_since_best = 0
            state.best_metric, state.best_step = metric if math.isfinite(metric) else None, state.step
            return
        weights = _gathering_of(model) if is_sharded(model) else None
        try:
            reason = self._save_on_main(model, weights, state.step, metric)
        finally:
            if weights is not None:
                weights.finish()  # also where the disk failed: the others gather with this process
        state.evaluations_since_best = 0
        lost, is_lost = self._lost, bool(self._runtime.maximum(float(reason is not None)))
        if lost is None or (metric >= lost.metric if greater_is_better else metric <= lost.metric):
            self._lost = _Lost(state.step, metric, reason or "") if is_lost else None
        if is_lost:
            return
        state.best_metric, state.best_step = metric if math.isfinite(metric) else None, state.step

    def is_that_of(self, state: TrainingState, greater_is_better: bool) -> bool:
        """Return whether the model in the folder is the best one of a checkpoint, or a better one of a later step.

        Args:
            state: The state in the checkpoint.
            greater_is_better: Whether a greater metric is better.

        Returns:
            False where the folder's model is recorded as worse than the checkpoint's best: it is not that model.
        """
        recorded = self._recorded()
        if recorded is None:
            return True
        if _Recorded(state.best_step, state.best_metric).is_better_than(recorded.metric, greater_is_better):
            _log.warning(
                "저장된 모델(스텝 %s)은 체크포인트의 가장 좋은 모델(스텝 %s)이 아닙니다. 다음 평가부터 다시 고릅니다.",
                f"{recorded.step:,}", f"{state.best_step:,}",
            )  # fmt: skip
            return False
        if recorded.step > state.step:
            _log.warning(
                "저장된 가장 좋은 모델은 이 체크포인트보다 뒤인 스텝 %s의 모델입니다. 더 좋은 모델로만 바꿉니다.",
                f"{recorded.step:,}",
            )
        return True

    def check(self, state: TrainingState) -> None:
        """Name the model in the folder at the end of a run, and report if it is not the best one.

        Args:
            state: The final state.

        Raises:
            ResourceError: The best model is only in a checkpoint, or no model was saved at all.
        """
        lost, recorded = self._lost, self._recorded()
        if recorded is not None:
            state.best_metric, state.best_step = recorded.metric, recorded.step
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

    @contextmanager
    def told_of(self) -> Iterator[None]:
        """Add to an error of the disk inside the block that the best model so far is saved, where it is."""
        try:
            yield
        except ResourceError as error:
            saved = self._read()
            if saved is None:
                raise
            also = f"지금까지 가장 좋은 모델(스텝 {saved.step:,})은 {self._store.folder.parent}에 저장되어 있습니다."
            raise ResourceError(error.what, where=error.where, remedy=f"{error.remedy} {also}") from error

    def _recorded(self) -> _Recorded | None:
        """Return what is recorded of the model in the folder, the same in all processes; None without such a model."""
        return self._runtime.from_main(self._read() if self._runtime.is_main else None)

    def _read(self) -> _Recorded | None:
        folder = self._store.folder.parent
        if not (folder / "config.json").is_file():
            return None
        try:
            found = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
            return _Recorded(int(found["step"]), None if found["metric"] is None else float(found["metric"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def _save_on_main(self, model: PreTrainedModel, weights: Gathering | None, step: int, metric: float) -> str | None:
        """Return why the model could not be saved, or None."""
        if not self._runtime.is_main:
            return None
        try:
            self._save(model, weights)
            write_json(self._store.folder.parent / _RECORD, {"step": step, "metric": metric})
        except ResourceError as error:
            _log.warning(
                "스텝 %s: %s (%s) 학습을 계속하고, 더 나은 모델이 나오면 다시 저장합니다.",
                f"{step:,}", error.what, error.where,
            )  # fmt: skip
            return error.what
        return None


def _gathering_of(model: PreTrainedModel) -> Gathering:
    """Return what is saved of a sharded model: of one with an adapter only what is trained."""
    is_adapter = getattr(model, "_hf_peft_config_loaded", False)
    tensors = model.state_dict(keep_vars=True)
    return Gathering({name: one for name, one in tensors.items() if one.requires_grad or not is_adapter})
