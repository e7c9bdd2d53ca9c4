"""One optimizer step over a window: forward, loss over the window's items, backward, clip, step, however it is cut."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from exceptions import OutOfMemory, SettingsError
from finetuning.config.schema import Settings
from finetuning.device.oom import MAY_BE_OUT_OF_MEMORY, is_out_of_memory, reraise_oom
from finetuning.inference.evaluator import Evaluator, to_device
from finetuning.ops.dense_attention import without_padding
from finetuning.reporting.profile import Profile
from finetuning.training.compile import CompiledLayers, is_worth_compiling
from finetuning.training.optimizers import (
    HalfStep,
    SteppedOneByOne,
    allocate_states,
    make_optimizer,
    measured_in_backward,
    stepped_in_backward,
)
from finetuning.types import Batch
from finetuning.windows.layouts import ReadyWindow, WindowPlanner
from finetuning.windows.order import Window

if TYPE_CHECKING:
    from accelerate import Accelerator

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepResult:
    """What a step came to: loss sum and items over all processes; the gradient's norm before clipping; lr: its own.

    loss_sum, grad_norm: scalars that are still on the device; reading them waits for it. Where one is not finite the
    step was left out. overflowed: that was fp16's range, and lowered the scale of its loss.
    """

    loss_sum: torch.Tensor
    items: int
    grad_norm: torch.Tensor
    lr: float
    tokens: int
    padded_tokens: int
    overflowed: bool


def losses_and_norms(results: Sequence[StepResult]) -> list[tuple[float, float]]:
    """The loss sum and the gradient's norm of each step, in one copy from the device."""
    rows = [torch.stack((result.loss_sum, result.grad_norm.to(result.loss_sum.dtype))) for result in results]
    return [(loss_sum, norm) for loss_sum, norm in torch.stack(rows).tolist()] if rows else []


class OptimizerStep:
    """Steps a model by windows. It keeps the optimizer and fp16's scaler, and nothing of the run.

    plan: how a window is cut to the memory there is; asked again after memory ran out.
    """

    def __init__(
        self, settings: Settings, evaluator: Evaluator, profile: Profile, plan: Callable[[Window], ReadyWindow]
    ) -> None:
        self.settings, self.profile, self.plan = settings, profile, plan
        self.task, self.model = evaluator.task, evaluator.model
        self.accelerator, self.memory = evaluator.accelerator, evaluator.memory
        self.optimizer = make_optimizer(self.model, settings.training, settings.memory.optimizer_in_backward)
        self.scaler = self.accelerator.scaler or torch.amp.GradScaler(self.accelerator.device.type, enabled=False)
        self.stepped_apart = self._stepped_apart()
        self.compiled: CompiledLayers | None = None
        # torch's AdamW is told on the device to leave a step out; for the others it must be known here
        self.is_told_on_device = (
            isinstance(self.optimizer, torch.optim.AdamW)
            and self.accelerator.device.type in ("cuda", "cpu")
            and not self.scaler.is_enabled()
        )

    def allocate(self) -> None:
        """Makes the optimizer's states now, so that no step of it runs out of memory."""
        with reraise_oom(self.memory, "옵티마이저의 상태가 메모리에 들어가지 않습니다."):
            allocate_states(self.optimizer)

    def compile_where_it_pays(self, planner: WindowPlanner) -> None:
        """Compiles the model's layers where the settings say so, or where a run over these windows wins by it.

        SettingsError or OutOfMemory where they cannot be compiled; where nobody asked for it, they are not.
        """
        asked, epochs = self.settings.training.torch_compile, self.settings.training.epochs
        precision, tokens = self.accelerator.mixed_precision, int(planner.examples.lengths.sum()) * epochs
        if not is_worth_compiling(self.settings, self.model, precision, planner.way, tokens):
            return
        try:
            self._compile_layers(planner.sample())
        except (SettingsError, OutOfMemory) as error:
            if asked:
                raise
            _log.info("층을 컴파일하지 않고 학습합니다. %s (training.torch_compile)", error.what)

    def _compile_layers(self, sample: Batch) -> None:
        """By a pass over a micro-batch like those to come, whose gradients are dropped."""
        compiled = CompiledLayers(self.model)
        telling = reraise_oom(self.memory, "층을 컴파일하는 동안 메모리가 부족했습니다.")
        with telling, measured_in_backward(self.model):
            compiled.compile(lambda: self.accumulate([sample], sample.items, 0))
        self.compiled = compiled

    def train(self, ready: ReadyWindow, step: int, lr: float) -> StepResult:
        """One step: the loss is the sum over the window's items by their number, whatever the micro-batches are.

        step: from 0, which dropout is drawn from. Where memory runs out the gradients are dropped, and the window is
        cut again; OutOfMemory where not even one example fits.
        """
        window = ready.window
        if ready.token_budget != self.memory.token_budget:  # memory ran out after it was planned
            ready = self.plan(window)
        batches = ready.batches
        items = int(over_processes(self.accelerator, float(sum(batch.items for batch in batches)), "sum"))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        while True:
            try:
                loss_sum, norm = self._backward(batches, items, step)
                break
            except MAY_BE_OUT_OF_MEMORY as error:
                if not is_out_of_memory(error):
                    raise
                largest = max(batches, key=lambda batch: batch.inputs["input_ids"].numel())
            self.optimizer.zero_grad(set_to_none=True)
            self.memory.shrink(largest.inputs["input_ids"].numel(), largest.examples())
            batches = self.plan(window).batches
        if self.accelerator.num_processes > 1:
            loss_sum = self.accelerator.reduce(loss_sum, reduction="sum")
        overflowed = False
        with self.profile.phase("optimizer"):
            if norm is None:
                grad_norm, overflowed = self._apply(loss_sum)
            else:
                grad_norm = torch.tensor(norm, device=loss_sum.device)
                self._apply_in_backward(batches, items, step, float(loss_sum), norm)
        tokens, padded = sum(batch.tokens for batch in batches), sum(batch.computed_tokens() for batch in batches)
        return StepResult(loss_sum, items, grad_norm, lr, tokens, padded, overflowed)

    def accumulate(self, batches: list[Batch], items: int, step: int) -> torch.Tensor:
        """Adds every micro-batch's share of the window's gradient; returns this process's loss sum, on the device.

        Dropout is seeded from the step, so that a resumed run draws what the run that was never stopped would have.
        """
        seed = np.random.SeedSequence([self.settings.training.seed, step, self.accelerator.process_index])
        torch.manual_seed(int(seed.generate_state(1, np.uint64)[0]))
        total = torch.zeros((), device=self.accelerator.device)
        layers = nullcontext() if self.compiled is None else self.compiled.in_use()
        with self.accelerator.autocast(), layers:  # around the whole window: weights are cast once, not every time
            for batch in batches:
                batch = to_device(batch, self.accelerator.device)
                with without_padding(self.model, batch.dense):
                    with self.profile.phase("forward"):
                        loss_sum = self.task.scores.training_loss(self.model, batch)
                    with self.profile.phase("backward"):
                        self.scaler.scale(loss_sum / items).backward()
                total = total + loss_sum.detach()
        return total

    def _backward(self, batches: list[Batch], items: int, step: int) -> tuple[torch.Tensor, float | None]:
        """This process's loss sum and, where the gradient was measured or applied as it came and is gone, its norm."""
        if self.stepped_apart is None or len(batches) > 1:
            return self.accumulate(batches, items, step), None
        if self.settings.training.max_grad_norm is None:
            way = stepped_in_backward(self.model, self.stepped_apart, 1.0)
        else:
            way = measured_in_backward(self.model)
        with way as norm:
            loss_sum = self.accumulate(batches, items, step)
        return loss_sum, norm.total()

    def _apply(self, loss_sum: torch.Tensor) -> tuple[torch.Tensor, bool]:
        """Clips and applies the gradients, unless something is not finite; their norm, and whether fp16 overflowed."""
        self.scaler.unscale_(self.optimizer)
        self._sum_gradients_over_processes()
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        limit = self.settings.training.max_grad_norm
        norm = torch.nn.utils.clip_grad_norm_(parameters, math.inf if limit is None else limit)
        is_finite, overflowed = torch.isfinite(loss_sum) & torch.isfinite(norm), False
        if self.is_told_on_device:
            self.optimizer.found_inf = (~is_finite).float()  # type: ignore[attr-defined]
            self._update_weights()
        elif bool(is_finite):
            self._update_weights()
        elif self.scaler.is_enabled() and self.scaler.get_scale() > 1 and math.isfinite(float(loss_sum)):
            _log.debug("fp16 범위를 넘은 기울기가 있어 loss scale을 낮춥니다.")
            overflowed = True
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return norm, overflowed

    def _apply_in_backward(self, batches: list[Batch], items: int, step: int, loss_sum: float, norm: float) -> None:
        """Where the gradient must be clipped, a second pass applies it: only then is its norm known."""
        limit = self.settings.training.max_grad_norm
        is_finite = math.isfinite(loss_sum) and math.isfinite(norm)
        if is_finite and limit is not None and self.stepped_apart is not None:
            self.memory.trim_heap()  # those of the first pass do not fit what the second makes in between
            with stepped_in_backward(self.model, self.stepped_apart, min(1.0, limit / (norm + 1e-6))):
                self.accumulate(batches, items, step)

    def _update_weights(self) -> None:
        """The optimizer's step. It allocates nothing; should it fail all the same, its weights must not be saved."""
        try:
            self.scaler.step(self.optimizer)
        except MAY_BE_OUT_OF_MEMORY as error:
            if not is_out_of_memory(error):
                raise
            raise HalfStep(
                "옵티마이저가 가중치를 바꾸는 도중에 메모리가 모자랐습니다.",
                where=self.memory.describe(),
                remedy="가중치가 반만 바뀌었을 수 있어 저장하지 않았습니다. --resume으로 체크포인트에서 이어 가세요.",
            ) from error

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

    def _sum_gradients_over_processes(self) -> None:
        """Adds the processes' gradients; a process whose share of the window was empty adds zeros."""
        if self.accelerator.num_processes == 1:
            return
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
                parameter.grad = self.accelerator.reduce(gradient, reduction="sum")


def over_processes(accelerator: Accelerator, value: float, operation: str) -> float:
    """The sum or max of the processes' values."""
    if accelerator.num_processes == 1:
        return value
    values = accelerator.gather(torch.tensor([value], dtype=torch.float64, device=accelerator.device))
    return float(values.max() if operation == "max" else values.sum())
