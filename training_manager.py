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

import numpy as np
import torch

from background_saving import BackgroundSaver
from batching import Examples, Window, epoch_order, window_of, windows_per_epoch
from checkpointing import (
    Checkpoint,
    CheckpointStore,
    Progress,
    optimizer_tensors,
    restore_model,
    restore_optimizer,
    trained_tensors,
)
from evaluation import Evaluator, to_device
from exceptions import ModelError, ResourceError, SettingsError, StopRequested
from memory_utils import is_out_of_memory, out_of_memory
from optimizers import (
    HalfStep,
    SteppedOneByOne,
    allocate_states,
    make_optimizer,
    measured_in_backward,
    stepped_in_backward,
)
from packing import without_padding
from profiling import profile_of
from reporting import MetricsFile, Tally, metrics_line, progress_bar
from resuming import check_epochs, check_same_run, fingerprint
from settings import Settings, TrainingSettings
from tasks.base import Batch, RandomKey
from windows import ReadyWindow, WindowPlanner, choose_way, planned_ahead

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
    last_metrics: dict[str, float] = field(default_factory=dict)
    since_log: Tally = field(default_factory=Tally)
    this_epoch: Tally = field(default_factory=Tally)


@dataclass(frozen=True)
class StepResult:
    """One optimizer step: loss sum and items over all processes; the gradient's norm before clipping."""

    loss_sum: float
    items: int
    grad_norm: float
    tokens: int
    padded_tokens: int


def learning_rate_factor(settings: TrainingSettings, step: int, total_steps: int) -> float:
    """What the learning rate is multiplied with at a step (from 0), as transformers.get_scheduler has it."""
    warmup = settings.warmup_steps or math.ceil(settings.warmup_ratio * total_steps)
    if step < warmup:
        return step / warmup
    if settings.lr_scheduler == "constant":
        return 1.0
    done = (step - warmup) / max(1, total_steps - warmup)
    if settings.lr_scheduler == "cosine":
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * done)))
    return max(0.0, 1.0 - done)


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
        self.metrics_file = MetricsFile(output_dir)
        self.profile = profile_of(settings.logging.profile, self.accelerator.device, output_dir)
        self.state = TrainingState()
        self.optimizer = make_optimizer(self.model, settings.training, settings.memory.optimizer_in_backward)
        self.stepped_apart = self._stepped_apart()
        self.scaler = self.accelerator.scaler or torch.amp.GradScaler(self.accelerator.device.type, enabled=False)
        self.window_size = (
            settings.data.batch_size * settings.memory.gradient_accumulation_steps * self.accelerator.num_processes
        )
        self.windows = windows_per_epoch(len(train), self.window_size)
        self.total_steps = self.windows * settings.training.epochs
        self.planner = WindowPlanner(
            self.task, self.tokenizer, train, evaluator.max_length, choose_way(self.task, self.model),
            settings.training.seed, self.accelerator.process_index, self.accelerator.num_processes,
            self.accelerator.device.type, as_few_as_fit=self.stepped_apart is not None,
        )  # fmt: skip

    # --- the loop ---

    def run(self) -> TrainingState:
        """Trains to the end and returns the final state; raises StopRequested once a stop's state is saved."""
        state, seed = self.state, self.settings.training.seed
        bar = progress_bar(self.settings.logging, self.total_steps, state.step, self.accelerator.is_main_process)
        self.model.train()
        self._allocate_states()
        with bar, self.saver:
            self._finish_step()  # a resumed run may owe an evaluation
            for epoch in range(state.epoch, self.settings.training.epochs):
                if epoch > state.epoch:
                    state.epoch, state.window, state.this_epoch = epoch, 0, Tally()
                order, since = epoch_order(len(self.train_examples), seed, epoch), time.perf_counter()
                todo = (window_of(order, self.window_size, epoch, n) for n in range(state.window, self.windows))
                for ready in self.profile.waiting(planned_ahead(self.plan, todo)):
                    with self._saved_where_memory_ends():
                        result = self.train_window(ready)
                    self._count(result, len(ready.window.indices), time.perf_counter() - since)
                    state.window, state.step = ready.window.number + 1, state.step + 1
                    with self.profile.phase("logging"):
                        if state.step % self.settings.logging.log_steps == 0 or state.window == self.windows:
                            self._log_progress(result)
                        bar.update()
                        self.memory.after_step(state.step)
                    self._finish_step()
                    since = time.perf_counter()
            self._save_for_good()
        return state

    def plan(self, window: Window) -> ReadyWindow:
        """The window cut to the token budget as it is now."""
        return self.planner.plan(window, self.memory.token_budget)

    def train_window(self, ready: ReadyWindow) -> StepResult:
        """One optimizer step: the loss is the sum over the window's items by their number, however it is cut."""
        window = ready.window
        if ready.token_budget != self.memory.token_budget:  # memory ran out after it was planned
            ready = self.plan(window)
        batches = ready.batches
        items = int(self._over_processes(float(sum(batch.items for batch in batches)), "sum"))
        self._set_learning_rate()
        while True:
            try:
                loss_sum, norm = self._backward(batches, items)
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                largest = max(batches, key=lambda batch: batch.inputs["input_ids"].numel())
            self.optimizer.zero_grad(set_to_none=True)
            self.memory.shrink_budget(largest.inputs["input_ids"].numel(), largest.examples())
            batches = self.plan(window).batches
        loss_sum = self._over_processes(loss_sum, "sum")
        with self.profile.phase("optimizer"):
            if norm is None:
                grad_norm = self._step(loss_sum, window)
            else:
                grad_norm = self._step_in_backward(batches, items, loss_sum, norm, window)
        return StepResult(
            loss_sum,
            items,
            grad_norm,
            tokens=sum(batch.tokens for batch in batches),
            padded_tokens=sum(batch.computed_tokens() for batch in batches),
        )

    def _backward(self, batches: list[Batch], items: int) -> tuple[float, float | None]:
        """This process's loss sum and, where the gradient was measured or applied as it came and is gone, its norm."""
        if self.stepped_apart is None or len(batches) > 1:
            return self._accumulate_gradients(batches, items), None
        if self.settings.training.max_grad_norm is None:
            way = stepped_in_backward(self.model, self.stepped_apart, 1.0)
        else:
            way = measured_in_backward(self.model)
        with way as norm:
            loss_sum = self._accumulate_gradients(batches, items)
        return loss_sum, norm.total()

    def _accumulate_gradients(self, batches: list[Batch], items: int) -> float:
        """Adds every micro-batch's share of the window's gradient; returns this process's loss sum.

        Dropout is seeded from the step, so that a resumed run draws what the run that was never stopped would have.
        """
        seed = np.random.SeedSequence([self.settings.training.seed, self.state.step, self.accelerator.process_index])
        torch.manual_seed(int(seed.generate_state(1, np.uint64)[0]))
        total = torch.zeros((), device=self.accelerator.device)
        with self.accelerator.autocast():  # around the whole window: weights are cast once, not once a micro-batch
            for batch in batches:
                batch = to_device(batch, self.accelerator.device)
                with without_padding(self.model, batch.dense):
                    with self.profile.phase("forward"):
                        loss_sum = self.task.training_loss(self.model, batch)
                    with self.profile.phase("backward"):
                        self.scaler.scale(loss_sum / items).backward()
                total = total + loss_sum.detach()
        return float(total)

    def _step(self, loss_sum: float, window: Window) -> float:
        """Clips and applies the gradients, unless something in them is not finite; returns their norm."""
        self.scaler.unscale_(self.optimizer)
        self._sum_gradients_over_processes()
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        limit = self.settings.training.max_grad_norm
        norm = torch.nn.utils.clip_grad_norm_(parameters, math.inf if limit is None else limit, foreach=True)
        grad_norm = float(norm)
        if math.isfinite(loss_sum) and math.isfinite(grad_norm):
            self._update_weights()
            self.state.bad_steps = 0
        elif math.isfinite(loss_sum) and self.scaler.is_enabled() and self.scaler.get_scale() > 1:
            _log.debug("fp16 범위를 넘은 기울기가 있어 loss scale을 낮춥니다.")
        else:
            self._report_bad_window(loss_sum, window)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return grad_norm

    def _step_in_backward(
        self, batches: list[Batch], items: int, loss_sum: float, grad_norm: float, window: Window
    ) -> float:
        """Where the gradient must be clipped, a second pass applies it: only then is its norm known."""
        limit = self.settings.training.max_grad_norm
        if not (math.isfinite(loss_sum) and math.isfinite(grad_norm)):
            self._report_bad_window(loss_sum, window)
            return grad_norm
        self.state.bad_steps = 0
        if limit is not None and self.stepped_apart is not None:
            with stepped_in_backward(self.model, self.stepped_apart, min(1.0, limit / (grad_norm + 1e-6))):
                self._accumulate_gradients(batches, items)
        return grad_norm

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
            with self._saved_where_memory_ends():
                try:
                    self._evaluate(epoch_ended)
                except StopRequested:
                    self._save_for_good()
                    raise

    def _stop_if_asked(self) -> None:
        signal_number = int(self._over_processes(float(self.stop_signal() or 0), "max"))
        if signal_number:
            self._save_for_good()
            raise StopRequested(signal_number)

    def _evaluate(self, epoch_ended: bool) -> None:
        state = self.state
        asked = self.settings.generation.validation_rows
        texts = self.task.validation_texts if asked is None else asked
        evaluation = self.evaluator.validate(self.validation, self.settings.training.seed, texts)
        line = metrics_line(evaluation.metrics)
        if epoch_ended:
            _log.info(
                "epoch %d/%d: 학습 손실 %.4f, 검증 %s",
                state.epoch + 1, self.settings.training.epochs, state.this_epoch.loss, line,
            )  # fmt: skip
        else:
            _log.info("스텝 %s: 검증 %s", f"{state.step:,}", line)
        if self.task.validation_texts:
            for line in evaluation.details:
                _log.info("%s", line)
        metric = evaluation.metrics[self.task.best_metric]
        if self._is_better(metric):
            state.best_metric, state.best_step = metric if math.isfinite(metric) else None, state.step
            if self.accelerator.is_main_process:
                self.saver.wait()  # of what lies in output_dir there is always a checkpoint, should the run be killed
                self.save_best(self.model)
            self.accelerator.wait_for_everyone()
        state.evaluated_step, state.last_metrics = state.step, evaluation.metrics
        self._record(
            kind="eval", **evaluation.metrics, **({"train_loss": state.this_epoch.loss} if epoch_ended else {})
        )

    def _is_better(self, metric: float) -> bool:
        if self.state.best_metric is None:  # the first model is kept whatever its metric: a run must leave one
            return math.isfinite(metric) or self.state.best_step == 0
        if self.task.greater_is_better:
            return metric > self.state.best_metric
        return metric < self.state.best_metric

    # --- memory that ends ---

    def _allocate_states(self) -> None:
        try:
            allocate_states(self.optimizer)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise self._out_of_memory("옵티마이저의 상태가 메모리에 들어가지 않습니다.") from error

    def _out_of_memory(self, what: str) -> ResourceError:
        return out_of_memory(what, self.memory.describe(), self.settings, self.memory.gradient_checkpointing)

    def _update_weights(self) -> None:
        """The optimizer's step. It allocates nothing; should it fail all the same, its weights must not be saved."""
        try:
            self.scaler.step(self.optimizer)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise HalfStep(
                "옵티마이저가 가중치를 바꾸는 도중에 메모리가 모자랐습니다.",
                where=self.memory.describe(),
                remedy="가중치가 반만 바뀌었을 수 있어 저장하지 않았습니다. --resume으로 체크포인트에서 이어 가세요.",
            ) from error

    @contextmanager
    def _saved_where_memory_ends(self) -> Iterator[None]:
        """Where not even one example fits, saves the run as of its last whole step before the error goes on."""
        try:
            yield
        except HalfStep:
            raise
        except (ResourceError, RuntimeError, MemoryError) as error:
            if not isinstance(error, ResourceError) and not is_out_of_memory(error):
                raise
            self.optimizer.zero_grad(set_to_none=True)
            told = error if isinstance(error, ResourceError) else self._out_of_memory("메모리가 부족합니다.")
            if self.state.step > 0:  # before the first step there is nothing to go on from
                self._save_for_good()
                told.remedy += f". 스텝 {self.state.step:,}까지의 상태는 저장했으므로 --resume으로 이어 갈 수 있습니다."
            raise told from error

    # --- checkpoints ---

    def _save(self) -> None:
        state = self.state
        state.saved_step = state.step
        if not self.accelerator.is_main_process:
            return
        try:
            metrics_bytes = self.metrics_file.size()
        except ResourceError as error:
            self.saver.fail(state.step, error)
            return
        tensors, scalars = optimizer_tensors(self.optimizer, self._names())
        whole_budget = self.settings.data.batch_size * self.evaluator.max_length
        kept = {
            "training": asdict(state),
            "optimizer": scalars,
            "scaler": self.scaler.state_dict(),
            "shrunk_token_budget": self.memory.token_budget if self.memory.token_budget < whole_budget else None,
            "metrics_bytes": metrics_bytes,
        }
        progress = Progress(state.epoch, state.window, state.step)
        self.saver.save(Checkpoint(trained_tensors(self.model), tensors, kept, progress, self.fingerprint))

    def _save_for_good(self) -> None:
        """Saves what is not saved yet and waits until it is whole; ResourceError where the disk does not let it."""
        if self.state.saved_step < self.state.step:
            self._save()
        self.saver.finish()
        self.metrics_file.size()

    def restore(self, checkpoint: Checkpoint, keeps_best: bool, allow_changed: bool = False) -> None:
        """Takes up a run where its checkpoint left it; SettingsError where it is another run's.

        keeps_best: whether the best model so far is where this run saves; else the next evaluation's is the best.
        allow_changed: whether settings that act on the steps to come alone may differ from the checkpoint's.
        """
        check_same_run(checkpoint.fingerprint, self.fingerprint, allow_changed)
        check_epochs(
            checkpoint.fingerprint, self.settings.training, checkpoint.progress.step, self.windows, learning_rate_factor
        )
        kept = dict(checkpoint.state["training"])
        since_log, this_epoch = Tally(**kept.pop("since_log")), Tally(**kept.pop("this_epoch"))
        self.state = TrainingState(**kept, since_log=since_log, this_epoch=this_epoch)
        if not keeps_best:
            self.state.best_metric, self.state.best_step, self.state.evaluated_step = None, 0, 0
        restore_model(self.model, checkpoint.model)
        restore_optimizer(self.optimizer, self._names(), checkpoint.optimizer, checkpoint.state["optimizer"])
        if checkpoint.state["scaler"]:  # none, where the checkpoint's run computed in another precision
            self.scaler.load_state_dict(checkpoint.state["scaler"])
        if checkpoint.state["shrunk_token_budget"] is not None:
            self.memory.token_budget = min(self.memory.token_budget, checkpoint.state["shrunk_token_budget"])
        if self.accelerator.is_main_process:
            self.metrics_file.cut(checkpoint.state["metrics_bytes"])

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

    def _stepped_apart(self) -> SteppedOneByOne | None:
        """The optimizer, where it is to step in the backward pass; SettingsError where it cannot."""
        if not (self.settings.memory.optimizer_in_backward and isinstance(self.optimizer, SteppedOneByOne)):
            return None
        if self.accelerator.num_processes > 1 or self.accelerator.mixed_precision == "fp16":
            raise SettingsError(
                "backward 중의 업데이트는 프로세스가 하나이고 fp16을 쓰지 않을 때만 할 수 있습니다.",
                where="memory.optimizer_in_backward: true",
                remedy="memory.optimizer_in_backward를 false로 두세요.",
            )
        return self.optimizer

    def _set_learning_rate(self) -> None:
        factor = learning_rate_factor(self.settings.training, self.state.step, self.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.training.learning_rate * factor

    def _count(self, result: StepResult, examples: int, seconds: float) -> None:
        is_good = math.isfinite(result.loss_sum) and math.isfinite(result.grad_norm)
        for tally in (self.state.since_log, self.state.this_epoch):
            if is_good:
                tally.add_loss(result.loss_sum, result.items)
            else:
                tally.skipped += 1
            tally.add_work(examples, result.tokens, result.padded_tokens, seconds)

    def _log_progress(self, result: StepResult) -> None:
        tally, lr = self.state.since_log, self.optimizer.param_groups[0]["lr"]
        where = f"epoch {self.state.epoch + 1} 스텝 {self.state.step:,}/{self.total_steps:,}"
        _log.info("%s: %s", where, tally.line(lr, result.grad_norm))
        self._record(
            kind="train", loss=tally.loss, lr=lr, grad_norm=result.grad_norm, skipped=tally.skipped,
            examples_per_s=round(tally.examples_per_s, 2), tokens_per_s=round(tally.tokens_per_s, 1),
            padding=round(tally.padding, 4), memory_bytes=self.memory.used(),
        )  # fmt: skip
        self.state.since_log = Tally()

    def _record(self, **fields: Any) -> None:
        if self.accelerator.is_main_process:
            where = {"step": self.state.step, "epoch": self.state.epoch + 1}
            finite = {k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in fields.items()}
            self.metrics_file.add({**where, **finite})

    def _report_bad_window(self, loss_sum: float, window: Window) -> None:
        """Says that a step was skipped and which rows made it; stops the run after several in a row."""
        self.state.bad_steps += 1
        what = "손실" if not math.isfinite(loss_sum) else "기울기"
        indices = window.indices.tolist()
        key = RandomKey(self.settings.training.seed, window.epoch)
        rows = self.evaluator.without_finite_loss(self.train_examples, indices, key) or indices
        named = [self.train_examples.fetch([index])[0]["row"] for index in rows[:_NAMED_ROWS]]
        more = f" 외 {len(rows) - _NAMED_ROWS}개" if len(rows) > _NAMED_ROWS else ""
        shown = ", ".join(str(row) for row in named) + more
        _log.warning(
            "스텝 %s: %s에 NaN 또는 Inf가 있어 이 스텝을 건너뜁니다. 학습 데이터의 행: %s",
            f"{self.state.step + 1:,}", what, shown,
        )  # fmt: skip
        if self.state.bad_steps >= _BAD_STEPS_IN_A_ROW:
            raise ModelError(
                f"{_BAD_STEPS_IN_A_ROW}스텝 연속으로 NaN 또는 Inf가 나와 학습을 멈춥니다.",
                where=f"epoch {window.epoch + 1}, 스텝 {self.state.step + 1:,}, 학습 데이터의 행 {shown}",
                remedy="training.learning_rate를 낮추거나(예: 10분의 1) training.warmup_steps를 늘리세요. "
                "그래도 같으면 memory.mixed_precision을 false로 하고 위 행의 내용을 확인하세요.",
            )

    # --- several processes ---

    def _over_processes(self, value: float, operation: str) -> float:
        """The sum or max of the processes' values."""
        if self.accelerator.num_processes == 1:
            return value
        values = self.accelerator.gather(torch.tensor([value], dtype=torch.float64, device=self.accelerator.device))
        return float(values.max() if operation == "max" else values.sum())

    def _sum_gradients_over_processes(self) -> None:
        """Adds the processes' gradients; a process whose share of the window was empty adds zeros."""
        if self.accelerator.num_processes == 1:
            return
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
                parameter.grad = self.accelerator.reduce(gradient, reduction="sum")
