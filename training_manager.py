"""The training loop over windows: forward, loss over the window's items, backward, clip, step, schedule."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

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
from exceptions import ModelError, SettingsError, StopRequested
from memory_utils import is_out_of_memory
from packing import without_padding
from profiling import profile_of
from reporting import MetricsFile, Tally, metrics_line, progress_bar
from settings import Settings, TrainingSettings
from tasks.base import Batch, RandomKey
from windows import ReadyWindow, WindowPlanner, choose_way, planned_ahead

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)
_BAD_STEPS_IN_A_ROW = 5
_NAMED_ROWS = 8
_CONTENT = "데이터의 내용"


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


def make_optimizer(model: torch.nn.Module, settings: TrainingSettings) -> torch.optim.AdamW:
    """Fused AdamW; biases and norms, the parameters of one dimension, do not decay."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    betas = (settings.adam_beta1, settings.adam_beta2)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=betas, eps=settings.adam_epsilon, fused=True)


def _check_same_run(saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    different = [name for name in {**saved, **current} if saved.get(name) != current.get(name)]
    if different:
        told = (
            f"{name}이 다릅니다"  # a hash says nothing to a person
            if name.endswith(_CONTENT)
            else f"{name}: 체크포인트 {saved.get(name)} / 지금 {current.get(name)}"
            for name in different
        )
        raise SettingsError(
            "체크포인트와 지금 설정이 달라 이어서 학습할 수 없습니다.",
            where="; ".join(told),
            remedy="처음 학습할 때의 설정으로 되돌리거나, 다른 --output_dir에서 새로 학습하세요.",
        )


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
        self.store, self.save_best, self.stop_signal, self.data_keys = store, save_best, stop_signal, data_keys
        self.metrics_file = MetricsFile(output_dir)
        self.profile = profile_of(settings.logging.profile, self.accelerator.device, output_dir)
        self.state = TrainingState()
        self.optimizer = make_optimizer(self.model, settings.training)
        self.scaler = self.accelerator.scaler or torch.amp.GradScaler(self.accelerator.device.type, enabled=False)
        self.window_size = (
            settings.data.batch_size * settings.memory.gradient_accumulation_steps * self.accelerator.num_processes
        )
        self.windows = windows_per_epoch(len(train), self.window_size)
        self.total_steps = self.windows * settings.training.epochs
        self.planner = WindowPlanner(
            self.task, self.tokenizer, train, evaluator.max_length, choose_way(self.task, self.model),
            settings.training.seed, self.accelerator.process_index, self.accelerator.num_processes,
            self.accelerator.device.type,
        )  # fmt: skip

    # --- the loop ---

    def run(self) -> TrainingState:
        """Trains to the end and returns the final state; raises StopRequested once a stop's state is saved."""
        state, seed = self.state, self.settings.training.seed
        bar = progress_bar(self.settings.logging, self.total_steps, state.step, self.accelerator.is_main_process)
        self.model.train()
        self._finish_step()  # a resumed run may owe an evaluation
        with bar:
            for epoch in range(state.epoch, self.settings.training.epochs):
                if epoch > state.epoch:
                    state.epoch, state.window, state.this_epoch = epoch, 0, Tally()
                order, since = epoch_order(len(self.train_examples), seed, epoch), time.perf_counter()
                todo = (window_of(order, self.window_size, epoch, n) for n in range(state.window, self.windows))
                for ready in self.profile.waiting(planned_ahead(self.plan, todo)):
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
                loss_sum = self._accumulate_gradients(batches, items)
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
            grad_norm = self._step(loss_sum, window)
        tokens, computed = sum(batch.tokens for batch in batches), sum(batch.computed_tokens() for batch in batches)
        return StepResult(loss_sum, items, grad_norm, tokens, computed)

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
                        loss_sum = self.task.loss_sum(self.task.forward(self.model, batch), batch)
                    with self.profile.phase("backward"):
                        self.scaler.scale(loss_sum / items).backward()
                total = total + loss_sum.detach()
        return float(total)

    def _step(self, loss_sum: float, window: Window) -> float:
        """Clips and applies the gradients, unless something in them is not finite; returns their norm."""
        self.scaler.unscale_(self.optimizer)
        self._sum_gradients_over_processes()
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.settings.training.max_grad_norm, foreach=True)
        grad_norm = float(norm)
        if math.isfinite(loss_sum) and math.isfinite(grad_norm):
            self.scaler.step(self.optimizer)
            self.state.bad_steps = 0
        elif math.isfinite(loss_sum) and self.scaler.is_enabled() and self.scaler.get_scale() > 1:
            _log.debug("fp16 범위를 넘은 기울기가 있어 loss scale을 낮춥니다.")
        else:
            self._report_bad_window(loss_sum, window)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return grad_norm

    # --- what is due after a step ---

    def _finish_step(self) -> None:
        """Evaluates and saves where that is due and not yet done, and stops where that was asked for."""
        state, training = self.state, self.settings.training
        if state.step == 0:
            return
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
                if state.saved_step < state.step:
                    self._save()
                raise

    def _stop_if_asked(self) -> None:
        signal_number = int(self._over_processes(float(self.stop_signal() or 0), "max"))
        if signal_number:
            if self.state.saved_step < self.state.step:
                self._save()
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

    # --- checkpoints ---

    def _save(self) -> None:
        state = self.state
        state.saved_step = state.step
        if not self.accelerator.is_main_process:
            return
        tensors, scalars = optimizer_tensors(self.optimizer, self._names())
        kept = {
            "training": asdict(state),
            "optimizer": scalars,
            "scaler": self.scaler.state_dict(),
            "token_budget": self.memory.token_budget,
            "metrics_bytes": self.metrics_file.size(),
        }
        progress = Progress(state.epoch, state.window, state.step)
        path = self.store.save(Checkpoint(trained_tensors(self.model), tensors, kept, progress, self._fingerprint()))
        _log.info("스텝 %s 체크포인트를 저장했습니다: %s", f"{state.step:,}", path)

    def restore(self, checkpoint: Checkpoint, keeps_best: bool) -> None:
        """Takes up a run where its checkpoint left it; SettingsError where it is another run's.

        keeps_best: whether the best model so far is where this run saves; else the next evaluation's is the best.
        """
        _check_same_run(checkpoint.fingerprint, self._fingerprint())
        kept = dict(checkpoint.state["training"])
        since_log, this_epoch = Tally(**kept.pop("since_log")), Tally(**kept.pop("this_epoch"))
        self.state = TrainingState(**kept, since_log=since_log, this_epoch=this_epoch)
        if not keeps_best:
            self.state.best_metric, self.state.best_step, self.state.evaluated_step = None, 0, 0
        restore_model(self.model, checkpoint.model)
        restore_optimizer(self.optimizer, self._names(), checkpoint.optimizer, checkpoint.state["optimizer"])
        self.scaler.load_state_dict(checkpoint.state["scaler"])
        self.memory.token_budget = min(self.memory.token_budget, checkpoint.state["token_budget"])
        if self.accelerator.is_main_process:
            self.metrics_file.cut(checkpoint.state["metrics_bytes"])

    def _fingerprint(self) -> dict[str, Any]:
        """What a resumed run must share with its checkpoint for its steps to be the same steps."""
        not_steps = {"eval_steps", "save_steps", "save_total_limit", "cuda_cleanup_freq"}
        return {
            "model.task": self.task.name,
            "model.name": f"{self.model.config.model_type}, 파라미터 {self.model.num_parameters():,}개",
            "model.adapter": self.settings.model.adapter.model_dump(),
            **{f"{name} {_CONTENT}": key for name, key in self.data_keys.items()},
            "data.max_length": self.evaluator.max_length,
            "data.batch_size × memory.gradient_accumulation_steps × 프로세스 수": self.window_size,
            "memory.mixed_precision": self.accelerator.mixed_precision,
            **{f"training.{k}": v for k, v in self.settings.training.model_dump(exclude=not_steps).items()},
        }

    def _names(self) -> dict[torch.nn.Parameter, str]:
        return {parameter: name for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    # --- counting, naming, schedules ---

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
