"""The training loop over windows: forward, loss over the window's items, backward, clip, step, schedule."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from exceptions import ModelError, OutOfMemory, ResourceError, StopRequested
from finetuning.checkpoints.background import BackgroundSaver
from finetuning.checkpoints.fingerprint import check_same_run, fingerprint
from finetuning.checkpoints.store import CheckpointStore
from finetuning.checkpoints.tensors import optimizer_tensors, restore_model, restore_optimizer, trained_tensors
from finetuning.config.schema import Settings
from finetuning.data.examples import Examples
from finetuning.device.oom import MAY_BE_OUT_OF_MEMORY, is_out_of_memory
from finetuning.inference.evaluator import Evaluator
from finetuning.reporting.log import progress_bar
from finetuning.reporting.metric_names import metrics_line
from finetuning.reporting.profile import profile_of
from finetuning.reporting.recorder import Recorder
from finetuning.reporting.throughput import Tally
from finetuning.training.optimizers import learning_rate_factor
from finetuning.training.resume import check_epochs
from finetuning.training.step import OptimizerStep, StepResult, losses_and_norms, over_processes
from finetuning.types import Checkpoint, Progress, RandomKey
from finetuning.windows.layouts import ReadyWindow, WindowPlanner, choose_way, planned_ahead
from finetuning.windows.order import Window, epoch_order, window_of, windows_per_epoch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)
_BAD_STEPS_IN_A_ROW = 5
_NAMED_ROWS = 8


class BestModelSaver(Protocol):
    """Saves the model as it is now as the run's result."""

    def __call__(self, model: PreTrainedModel) -> None: ...


@dataclass
class TrainingState:
    """Where a run is: with the weights and the optimizer, all that a checkpoint keeps."""

    epoch: int = 0
    window: int = 0
    step: int = 0
    evaluated_step: int = 0
    saved_step: int = 0
    bad_steps: int = 0
    best_metric: float | None = None
    best_step: int = 0
    evaluations_since_best: int = 0
    last_metrics: dict[str, float] = field(default_factory=dict)
    since_log: Tally = field(default_factory=Tally)
    this_epoch: Tally = field(default_factory=Tally)


class TrainingManager:
    """Trains one model on one split, evaluating, saving and stopping where that is due."""

    def __init__(
        self,
        settings: Settings,
        evaluator: Evaluator,
        train: Examples,
        validation: Examples,
        store: CheckpointStore,
        save_best: BestModelSaver,
        stop_signal: Callable[[], int | None],
        data_keys: Mapping[str, str],
        output_dir: Path,
    ) -> None:
        self.settings, self.evaluator, self.train_examples, self.validation = settings, evaluator, train, validation
        self.task, self.model, self.tokenizer = evaluator.task, evaluator.model, evaluator.tokenizer
        self.accelerator, self.memory = evaluator.accelerator, evaluator.memory
        self.save_best, self.stop_signal, self.data_keys = save_best, stop_signal, data_keys
        self.store, self.saver = store, BackgroundSaver(store)
        self.recorder = Recorder(settings, output_dir, self.accelerator.is_main_process)
        self.profile = profile_of(settings.logging.profile, self.accelerator.device, output_dir)
        self.state = TrainingState()
        self._unread: list[tuple[int, Window, StepResult]] = []  # the steps since those that were read, by their number
        self.stepper = OptimizerStep(settings, evaluator, self.profile, self.plan)
        self.optimizer, self.scaler = self.stepper.optimizer, self.stepper.scaler
        self.window_size = (
            settings.data.batch_size * settings.memory.gradient_accumulation_steps * self.accelerator.num_processes
        )
        self.windows = windows_per_epoch(len(train), self.window_size)
        self.total_steps = self.windows * settings.training.epochs
        self.planner = WindowPlanner(
            self.task, self.tokenizer, train, evaluator.max_length,
            choose_way(self.task, self.model, evaluator.max_length),
            settings.training.seed, self.accelerator.process_index, self.accelerator.num_processes,
            self.accelerator.device.type, as_few_as_fit=self.stepper.stepped_apart is not None,
        )  # fmt: skip

    # --- the loop ---

    def run(self) -> TrainingState:
        """Trains to the end and returns the final state; raises StopRequested once a stop's state is saved."""
        state, seed = self.state, self.settings.training.seed
        self.model.train()
        self.stepper.allocate()
        self.stepper.compile_where_it_pays(self.planner)
        bar = progress_bar(self.settings.logging, self.total_steps, state.step, self.accelerator.is_main_process)
        with bar, self.saver, self.recorder, self._saved_where_memory_ends():
            self._finish_step()  # a resumed run may owe an evaluation
            for epoch in range(state.epoch, self.settings.training.epochs):
                if self._is_out_of_patience():
                    break
                if epoch > state.epoch:
                    state.epoch, state.window, state.this_epoch = epoch, 0, Tally()
                order, since = epoch_order(len(self.train_examples), seed, epoch), time.perf_counter()
                todo = (window_of(order, self.window_size, epoch, n) for n in range(state.window, self.windows))
                for ready in self.profile.waiting(planned_ahead(self.plan, todo)):
                    result = self.train_window(ready)
                    state.window, state.step = ready.window.number + 1, state.step + 1
                    self._count(result, ready.window, time.perf_counter() - since)
                    with self.profile.phase("logging"):
                        if state.step % self.settings.logging.log_steps == 0 or state.window == self.windows:
                            self._log_progress(result.lr)
                        bar.update()
                        self.memory.after_step(state.step)
                    self._finish_step()
                    since = time.perf_counter()
                    if self._is_out_of_patience():
                        break
            self._save_for_good()
        return state

    def plan(self, window: Window) -> ReadyWindow:
        """The window cut to the token budget as it is now."""
        return self.planner.plan(window, self.memory.token_budget)

    def train_window(self, ready: ReadyWindow) -> StepResult:
        """One optimizer step."""
        factor = learning_rate_factor(self.settings.training, self.state.step, self.total_steps)
        return self.stepper.train(ready, self.state.step, self.settings.training.learning_rate * factor)

    # --- what is due after a step ---

    def _finish_step(self) -> None:
        """Evaluates and saves where that is due and not yet done, and stops where that was asked for."""
        state, training = self.state, self.settings.training
        if state.step == 0:
            return
        self.saver.report()
        self._stop_if_asked()
        epoch_ended = state.window == self.windows
        by_epoch = training.save_steps is None
        save_due = epoch_ended if by_epoch else state.step % (training.save_steps or 1) == 0
        if (save_due or state.step == self.total_steps) and state.saved_step < state.step:
            self._save()  # first: what comes after may fail, and a resumed run makes up for an evaluation it owes
        evaluation_due = epoch_ended or (training.eval_steps is not None and state.step % training.eval_steps == 0)
        if evaluation_due and state.evaluated_step < state.step:
            try:
                self._evaluate(epoch_ended)
            except StopRequested:
                self._save_for_good()
                raise

    def _stop_if_asked(self) -> None:
        signal_number = int(over_processes(self.accelerator, float(self.stop_signal() or 0), "max"))
        if signal_number:
            self._save_for_good()
            raise StopRequested(signal_number)

    def _evaluate(self, epoch_ended: bool) -> None:
        self._read_steps()
        state = self.state
        asked = self.settings.generation.validation_rows
        texts = self.task.scores.validation_texts if asked is None else asked
        evaluation = self.evaluator.validate(self.validation, self.settings.training.seed, texts)
        line = metrics_line(evaluation.metrics)
        if epoch_ended:
            _log.info(
                "epoch %d/%d: 학습 손실 %.4f, 검증 %s",
                state.epoch + 1, self.settings.training.epochs, state.this_epoch.loss, line,
            )  # fmt: skip
        else:
            _log.info("스텝 %s: 검증 %s", f"{state.step:,}", line)
        if self.task.scores.validation_texts:
            for line in evaluation.details:
                _log.info("%s", line)
        metric = evaluation.metrics[self.task.scores.best_metric]
        state.evaluations_since_best += 1
        if self._is_better(metric):
            state.evaluations_since_best = 0
            state.best_metric, state.best_step = metric if math.isfinite(metric) else None, state.step
            if self.accelerator.is_main_process:
                self.saver.wait()  # of what lies in output_dir there is always a checkpoint, should the run be killed
                self.save_best(self.model)
            self.accelerator.wait_for_everyone()
        state.evaluated_step, state.last_metrics = state.step, evaluation.metrics
        self._record(
            kind="eval", **evaluation.metrics, **({"train_loss": state.this_epoch.loss} if epoch_ended else {})
        )

        if self._is_out_of_patience():
            _log.info(
                "검증 %s 값이 %d번 이어서 나아지지 않아 학습을 마칩니다. (training.early_stopping_patience)",
                self.task.scores.best_metric, state.evaluations_since_best,
            )  # fmt: skip

    def _is_out_of_patience(self) -> bool:
        patience = self.settings.training.early_stopping_patience
        return patience is not None and self.state.evaluations_since_best >= patience

    def _is_better(self, metric: float) -> bool:
        if self.state.best_metric is None:  # the first model is kept whatever its metric: a run must leave one
            return math.isfinite(metric) or self.state.best_step == 0
        if self.task.scores.greater_is_better:
            return metric > self.state.best_metric
        return metric < self.state.best_metric

    # --- memory that ends ---

    @contextmanager
    def _saved_where_memory_ends(self) -> Iterator[None]:
        """Where not even one example fits, saves the run as of its last whole step before the error goes on."""
        try:
            yield
        except (OutOfMemory, *MAY_BE_OUT_OF_MEMORY) as error:
            if not isinstance(error, OutOfMemory) and not is_out_of_memory(error):
                raise
            self.optimizer.zero_grad(set_to_none=True)
            told = error if isinstance(error, OutOfMemory) else self.memory.ran_out("메모리가 부족합니다.")
            if self.state.step > 0:  # before the first step there is nothing to go on from
                self._save_for_good()
                told.remedy += (
                    f". 스텝 {self.state.step:,}까지의 상태를 저장했으므로, 메모리를 늘리거나 memory 설정을 바꾸면 "
                    "--resume으로 이어 갈 수 있습니다. 다른 설정을 바꾸면 처음부터 학습해야 합니다."
                )
            raise told from error

    # --- checkpoints ---

    def _save(self) -> None:
        self._read_steps()
        state = self.state
        state.saved_step = state.step
        if not self.accelerator.is_main_process:
            return
        try:
            metrics_bytes = self.recorder.size()
        except ResourceError as error:
            self.saver.fail(state.step, error)
            return
        self.memory.clean_up()  # what steps leave unused would stand beside the copy that is saved
        tensors, scalars = optimizer_tensors(self.optimizer, self._names())
        whole_budget = self.settings.data.batch_size * self.evaluator.max_length
        kept = {
            "training": asdict(state),
            "optimizer": scalars,
            "scaler": self.scaler.state_dict(),
            "shrunk_token_budget": self.memory.token_budget if self.memory.token_budget < whole_budget else None,
            "chosen": self.memory.chosen,
            "metrics_bytes": metrics_bytes,
        }
        progress = Progress(state.epoch, state.window, state.step)
        self.saver.save(Checkpoint(trained_tensors(self.model), tensors, kept, progress, self.fingerprint))

    def _save_for_good(self) -> None:
        """Saves what is not saved yet and waits until it is whole; ResourceError where the disk does not let it."""
        if self.state.saved_step < self.state.step:
            self._save()
        self.saver.finish()
        self.recorder.size()

    def restore(self, checkpoint: Checkpoint, keeps_best: bool, allow_changed: bool = False) -> None:
        """Takes up a run where its checkpoint left it; SettingsError where it is another run's.

        keeps_best: whether the best model so far is where this run saves; else the next evaluation's is the best.
        allow_changed: whether settings that act on the steps to come alone may differ from the checkpoint's.
        """
        check_same_run(checkpoint.fingerprint, self.fingerprint, allow_changed)
        check_epochs(checkpoint.fingerprint, self.settings.training, checkpoint.progress.step, self.windows)
        kept = dict(checkpoint.state["training"])
        since_log, this_epoch = Tally(**kept.pop("since_log")), Tally(**kept.pop("this_epoch"))
        self.state = TrainingState(**kept, since_log=since_log, this_epoch=this_epoch)
        if not keeps_best:
            self.state.best_metric, self.state.best_step, self.state.evaluated_step = None, 0, 0
            self.state.evaluations_since_best = 0
        restore_model(self.model, checkpoint.model)
        restore_optimizer(self.optimizer, self._names(), checkpoint.optimizer, checkpoint.state["optimizer"])
        if checkpoint.state["scaler"]:  # none, where the checkpoint's run computed in another precision
            self.scaler.load_state_dict(checkpoint.state["scaler"])
        if checkpoint.state["shrunk_token_budget"] is not None:
            self.memory.start_at(checkpoint.state["shrunk_token_budget"])
        self.recorder.cut(checkpoint.state["metrics_bytes"], checkpoint.progress.step)

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What a resumed run must share with its checkpoint for its steps to be the same steps."""
        return fingerprint(
            self.settings, self.model, self.train_examples, self.data_keys, self.evaluator.max_length,
            self.window_size, self.accelerator.mixed_precision,
        )  # fmt: skip

    def _names(self) -> dict[torch.nn.Parameter, str]:
        return {parameter: name for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    # --- counting, naming, schedules ---

    def _count(self, result: StepResult, window: Window, seconds: float) -> None:
        self._unread.append((self.state.step, window, result))
        for tally in (self.state.since_log, self.state.this_epoch):
            tally.add_work(len(window.indices), result.tokens, result.padded_tokens, seconds)

    def _read_steps(self) -> float:
        """Reads what the steps came to since it was last done: the device is waited for here, and not in each step.

        Returns the last one's gradient norm. Steps that were left out are reported; ModelError after several in a row.
        """
        unread, norm, since = self._unread, math.nan, time.perf_counter()
        self._unread = []
        values = losses_and_norms([result for _, _, result in unread])
        waited = time.perf_counter() - since  # for the steps themselves, which the device had only been handed
        for tally in (self.state.since_log, self.state.this_epoch):
            tally.seconds += waited
        for (step, window, result), (loss_sum, norm) in zip(unread, values, strict=True):
            is_good = math.isfinite(loss_sum) and math.isfinite(norm)
            for tally in (self.state.since_log, self.state.this_epoch):
                if is_good:
                    tally.add_loss(loss_sum, result.items)
                else:
                    tally.skipped += 1
            if is_good:
                self.state.bad_steps = 0
            elif not result.overflowed:
                self._report_bad_window(step, loss_sum, window)
        return norm

    def _log_progress(self, lr: float) -> None:
        tally, grad_norm = self.state.since_log, self._read_steps()
        where = f"epoch {self.state.epoch + 1} 스텝 {self.state.step:,}/{self.total_steps:,}"
        _log.info("%s: %s", where, tally.line(lr, grad_norm))
        self._record(
            kind="train", loss=tally.loss, lr=lr, grad_norm=grad_norm, skipped=tally.skipped,
            examples_per_s=round(tally.examples_per_s, 2), tokens_per_s=round(tally.tokens_per_s, 1),
            padding=round(tally.padding, 4), memory_bytes=self.memory.used(),
        )  # fmt: skip
        self.state.since_log = Tally()

    def _record(self, **fields: Any) -> None:
        self.recorder.record(self.state.step, self.state.epoch + 1, **fields)

    def _report_bad_window(self, step: int, loss_sum: float, window: Window) -> None:
        """Says that a step was skipped and which rows made it; stops the run after several in a row."""
        self.state.bad_steps += 1
        what = "손실" if not math.isfinite(loss_sum) else "기울기"
        indices = window.indices.tolist()
        key = RandomKey(self.settings.training.seed, window.epoch)
        try:
            rows = self.evaluator.without_finite_loss(self.train_examples, indices, key) or indices
        except MAY_BE_OUT_OF_MEMORY as error:
            if not is_out_of_memory(error):
                raise
            rows = indices  # nothing to compute with: the run is about to be saved, perhaps for want of memory
        named = [self.train_examples.fetch([index])[0]["row"] for index in rows[:_NAMED_ROWS]]
        more = f" 외 {len(rows) - _NAMED_ROWS}개" if len(rows) > _NAMED_ROWS else ""
        shown = ", ".join(str(row) for row in named) + more
        _log.warning(
            "스텝 %s: %s에 NaN 또는 Inf가 있어 이 스텝을 건너뜁니다. 학습 데이터의 행: %s",
            f"{step:,}", what, shown,
        )  # fmt: skip
        if self.state.bad_steps >= _BAD_STEPS_IN_A_ROW:
            raise ModelError(
                f"{_BAD_STEPS_IN_A_ROW}스텝 연속으로 NaN 또는 Inf가 나와 학습을 멈춥니다.",
                where=f"epoch {window.epoch + 1}, 스텝 {step:,}, 학습 데이터의 행 {shown}",
                remedy="training.learning_rate를 낮추거나(예: 10분의 1) training.warmup_steps를 늘리세요. "
                "그래도 같으면 memory.mixed_precision을 false로 하고 위 행의 내용을 확인하세요.",
            )
