"""The training loop over windows, written by hand: forward, loss, backward, clip, step, and what is due after it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from exceptions import StopRequested
from finetuning.checkpoints.fingerprint import check_same_run, fingerprint
from finetuning.checkpoints.store import CheckpointStore
from finetuning.config.schema import Settings
from finetuning.data.examples import Examples
from finetuning.device.sharding import shards_of
from finetuning.inference.evaluator import Evaluator
from finetuning.reporting.log import progress_bar
from finetuning.reporting.metric_names import metrics_line
from finetuning.reporting.profile import profile_of
from finetuning.reporting.recorder import Recorder
from finetuning.reporting.samples import samples_of
from finetuning.training.ahead import ReadyWindow, WindowPlanner, planned_ahead
from finetuning.training.best_model import BestModel, BestModelSaver, metric_of
from finetuning.training.checkpointing import RunCheckpoints, saved_on_out_of_memory
from finetuning.training.ledger import StepLedger
from finetuning.training.results import StepResult
from finetuning.training.resume import check_epochs
from finetuning.training.schedules import schedule_of
from finetuning.training.sharded import tell_of_sharding
from finetuning.training.state import TrainingState
from finetuning.training.step import OptimizerStep
from finetuning.types import Checkpoint
from finetuning.windows.layouts import choose_layout, log_layout
from finetuning.windows.order import Window, order_of, window_of, windows_per_epoch
from finetuning.windows.partition import FEWEST

_log = logging.getLogger(__name__)


class TrainingManager:
    """Trains one model on one split; evaluates, saves and stops where that is due."""

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
        self.runtime, self.memory = evaluator.runtime, evaluator.memory
        self.stop_signal, self.store = stop_signal, store
        self.best = BestModel(save_best, store, self.runtime)
        self.recorder = Recorder(settings, output_dir, self.runtime.is_main)
        self.profile = profile_of(settings.logging.profile, self.runtime.wait_for_device, output_dir)
        self.state = TrainingState()
        self.ledger = StepLedger(self.state, evaluator, train, settings.training.seed, self.recorder)
        accumulated = settings.data.batch_size * settings.memory.gradient_accumulation_steps
        self.window_size = accumulated * self.runtime.processes
        self.windows = windows_per_epoch(train.per_epoch, self.window_size)
        self.total_steps = self.windows * settings.training.epochs
        self.schedule = schedule_of(settings.training, self.total_steps)
        # an optimizer in the backward pass steps windows of one micro-batch alone
        fixed_cost = FEWEST if settings.memory.optimizer_in_backward else None
        layout = choose_layout(self.task, self.model, evaluator.max_length, fixed_cost, self.runtime.card)
        log_layout(layout, self.task)
        seed = settings.training.seed
        self.planner = WindowPlanner(self.task, self.tokenizer, train, layout, seed, self.runtime)
        # what a resumed run must share with its checkpoint, so that its steps are the same steps
        self.fingerprint = fingerprint(
            settings, self.model, train, data_keys, evaluator.max_length, self.window_size, self.runtime.precision
        )
        tell_of_sharding(settings, self.runtime)
        self.stepper = OptimizerStep(settings, evaluator, self.profile, self.plan, shards_of(self.model))
        self.optimizer, self.loss_scale = self.stepper.optimizer, self.stepper.loss_scale
        self.checkpoints = RunCheckpoints(evaluator, self.stepper, store, self.recorder)
        self.saver = self.checkpoints.saver

    # --- the loop ---

    def run(self) -> TrainingState:
        """Train to the end and return the final state; raise StopRequested once the state of a stop is saved."""
        state = self.state
        self.model.train()
        self.prepare()
        bar = progress_bar(self.settings.logging, self.total_steps, state.step, self.runtime.is_main)
        with bar, self.saver, self.recorder, saved_on_out_of_memory(self._save_for_good, self.stepper, self.state):
            self._finish_step()  # a resumed run may owe an evaluation
            # windows: cut and collated ahead by a thread, in the order that seed and epoch give
            for ready in self._windows():
                result = self.train_window(ready)
                state.window, state.step = ready.window.number + 1, state.step + 1
                self.ledger.count(result, ready.window, self.ledger.elapsed())
                with self.profile.phase("logging"):
                    # log: losses are read from the device here, and not in each step
                    if state.step % self.settings.logging.log_steps == 0 or state.window == self.windows:
                        self.ledger.log(result.lr, self.total_steps)
                    bar.update()
                    # clean up: give unused memory back where that is due
                    self.memory.after_step(state.step)
                # stop, save, evaluate: where that is due
                self._finish_step()
                self.ledger.start_clock()
                if self._is_out_of_patience():
                    break
            self._save_for_good()
        self.best.check(state)
        return state

    def prepare(self) -> None:
        """Allocate the optimizer's states, and compile the layers if that pays; see `OptimizerStep.prepare`."""
        self.stepper.prepare(self.planner)
        self.planner = replace(self.planner, shares=self.stepper.compiled is None)

    def train_window(self, ready: ReadyWindow) -> StepResult:
        """Take one optimizer step."""
        step = self.state.step
        # schedule
        self.stepper.set_learning_rate(self.settings.training.learning_rate * self.schedule(step))
        # forward, loss, backward: each micro-batch adds its share of the window's gradient; where memory runs out the
        # window is cut smaller, which changes nothing
        gradient = self.stepper.gradient(ready, step)
        # clip: by the norm of the window's whole gradient, over all processes
        norm = self.stepper.clip(gradient)
        # step: left out where the loss or the norm is not finite
        return self.stepper.update(gradient, norm, step)

    def _windows(self) -> Iterator[ReadyWindow]:
        """Yield the windows that are still to be trained on, over all epochs."""
        state = self.state
        for epoch in range(state.epoch, self.settings.training.epochs):
            if self._is_out_of_patience():
                return
            if epoch > state.epoch:
                state.begin_epoch(epoch)
            order = order_of(self.train_examples, self.settings.training.seed, epoch)
            todo = (window_of(order, self.window_size, epoch, n) for n in range(state.window, self.windows))
            self.ledger.start_clock()
            yield from self.ledger.waiting(self.profile.waiting(planned_ahead(self.plan, todo)))

    def plan(self, window: Window) -> ReadyWindow:
        """Cut a window to the token budget as it is now."""
        return self.planner.plan(window, self.memory.token_budget)

    # --- what is due after a step ---

    def _finish_step(self) -> None:
        """Stop, save and evaluate where that is due and not done yet."""
        state, training = self.state, self.settings.training
        if state.step == 0:
            return
        self.saver.report()
        self._stop_if_asked()
        epoch_ended = state.window == self.windows
        by_epoch = training.save_steps is None
        save_due = epoch_ended if by_epoch else state.step % (training.save_steps or 1) == 0
        if (save_due or state.step == self.total_steps) and state.saved_step < state.step:
            self._save()  # before the evaluation, which may fail: a resumed run makes up for an evaluation it owes
        evaluation_due = epoch_ended or (training.eval_steps is not None and state.step % training.eval_steps == 0)
        if evaluation_due and state.evaluated_step < state.step:
            try:
                self._evaluate(epoch_ended)
            except StopRequested:
                self._save_for_good()
                raise

    def _stop_if_asked(self) -> None:
        signal_number = int(self.runtime.maximum(float(self.stop_signal() or 0)))
        if signal_number:
            self._save_for_good()
            raise StopRequested(signal_number)

    def _evaluate(self, epoch_ended: bool) -> None:
        """Evaluate on the validation split, log it, and save the model where it is the best so far."""
        self.ledger.read()
        state, epochs = self.state, self.settings.training.epochs
        asked = self.settings.generation.validation_rows
        texts = self.task.scores.validation_texts if asked is None else asked
        evaluation = self.evaluator.validate(self.validation, self.settings.training.seed, texts)
        line = metrics_line(evaluation.metrics)
        if epoch_ended:
            _log.info("epoch %d/%d: 학습 손실 %.4f, 검증 %s", state.epoch + 1, epochs, state.this_epoch.loss, line)
        else:
            _log.info("스텝 %s: 검증 %s", f"{state.step:,}", line)
        for line in evaluation.details if self.task.scores.validation_texts else ():
            _log.info("%s", line)
        said, names = evaluation.predictions, self.evaluator.label_names
        self.recorder.show(state.step, samples_of(self.task, self.validation.rows, said, names, self.tokenizer))
        metric = metric_of(evaluation.metrics, self.task.scores.best_metric)
        state.evaluations_since_best += 1
        if state.is_better(metric, self.task.scores.greater_is_better):
            self.saver.wait()  # a model in output_dir always has its checkpoint, should the run be killed
            self.best.keep(self.model, state, metric, self.task.scores.greater_is_better)
        state.evaluated_step, state.last_metrics = state.step, evaluation.metrics
        epoch_loss = {"train_loss": state.this_epoch.loss} if epoch_ended else {}
        self._record(kind="eval", **evaluation.metrics, **epoch_loss)
        if self._is_out_of_patience():
            _log.info(
                "검증 %s 값이 %d번 연속으로 나아지지 않아 학습을 마칩니다. (training.early_stopping_patience)",
                self.task.scores.best_metric, state.evaluations_since_best,
            )  # fmt: skip

    def _is_out_of_patience(self) -> bool:
        patience = self.settings.training.early_stopping_patience
        return patience is not None and self.state.evaluations_since_best >= patience

    def is_complete(self) -> bool:
        """Return whether training has ended and left a best model, whether or not the disk took the last checkpoint."""
        has_ended = self.state.step >= self.total_steps or self._is_out_of_patience()
        return has_ended and self.state.evaluated_step == self.state.step and self.state.best_step > 0

    def _record(self, **fields: Any) -> None:
        self.recorder.record(self.state.step, self.state.epoch + 1, **fields)

    # --- checkpoints ---

    def _save(self) -> None:
        self.ledger.read()
        self.checkpoints.save(self.state, self.fingerprint)

    def _save_for_good(self) -> None:
        """Save what is not saved yet and wait until it is whole; ResourceError where the disk does not take it."""
        if self.state.saved_step < self.state.step:
            self._save()
        with self.best.told_of():
            self.checkpoints.finish()

    def restore(self, checkpoint: Checkpoint, keeps_best: bool, allow_changed: bool = False) -> None:
        """Continue from a checkpoint.

        Args:
            checkpoint: The checkpoint.
            keeps_best: Whether the best model so far is where this run saves; else the next evaluation sets one.
            allow_changed: Whether settings that affect future steps only may differ from those of the checkpoint.

        Raises:
            SettingsError: The run of the checkpoint cannot continue under these settings.
        """
        check_same_run(checkpoint.fingerprint, self.fingerprint, allow_changed)
        check_epochs(checkpoint.fingerprint, self.settings.training, checkpoint.progress.step, self.windows)
        self.state = self.checkpoints.restore(checkpoint)
        self.ledger = StepLedger(
            self.state, self.evaluator, self.train_examples, self.settings.training.seed, self.recorder
        )
        if not (keeps_best and self.best.is_that_of(self.state, self.task.scores.greater_is_better)):
            self.state.forget_best()
