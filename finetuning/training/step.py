"""The parts of one optimizer step over a window: gradient, clipping, update. The cut does not change the result."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Literal, TypeVar

import torch

from exceptions import OutOfMemory, SettingsError
from finetuning.config.schema import Settings
from finetuning.device.clipping import clipping_factor
from finetuning.device.oom import MAY_BE_OUT_OF_MEMORY, is_out_of_memory, reraise_oom
from finetuning.device.sharding import Shards
from finetuning.inference.evaluator import Evaluator
from finetuning.ops.dense_attention import without_padding
from finetuning.ops.dropout import QuickDropout
from finetuning.ops.embedding_gradient import RowGradients, SmallTables
from finetuning.ops.head_gradient import LaterGradient
from finetuning.ops.shared_casts import SharedCasts, linear_layers
from finetuning.ops.weight_copies import WeightCopies
from finetuning.reporting.profile import Profile
from finetuning.tasks.vocabulary import late_head_of
from finetuning.training.ahead import ReadyWindow, WindowPlanner
from finetuning.training.backward_step import HalfStep, measured_in_backward, stepped_in_backward
from finetuning.training.chunked import ChunkedOptimizer
from finetuning.training.compile import CompiledLayers, is_worth_compiling
from finetuning.training.optimizers import allocate_states, make_optimizer, stepping_lines, takes_found_inf
from finetuning.training.recorded import CudaGraphs, RecordedPasses, are_recorded
from finetuning.training.results import StepResult, WindowGradient
from finetuning.training.votes import PeerRanOut, check_peers, vote
from finetuning.types import Batch
from finetuning.windows.objectives.registry import objective_of
from finetuning.windows.order import Window

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_MORE_THAN_COMPILING = 0.1  # of the tokens: compiled layers take rows of one form, in which no beginning is shared
LateGradients = LaterGradient | RowGradients | WeightCopies
InUse = CompiledLayers | QuickDropout | SharedCasts | SmallTables | LateGradients


class OptimizerStep:
    """Computes, clips and applies the gradient of a window. It owns the optimizer and fp16's loss scale.

    Args:
        settings: The settings of the run.
        evaluator: Holds the model in training, its task, its runtime and its memory.
        profile: Measures the phases of a step.
        plan: Cuts a window into micro-batches that fit the token budget; called again after memory ran out.
        shards: This process's shards of the model; None where the model is whole.
    """

    def __init__(
        self, settings: Settings, evaluator: Evaluator, profile: Profile, plan: Callable[[Window], ReadyWindow],
        shards: Shards | None = None,
    ) -> None:  # fmt: skip
        self.settings, self.profile, self.plan, self.shards = settings, profile, plan, shards
        self.model, self.runtime, self.memory = evaluator.model, evaluator.runtime, evaluator.memory
        self.task, self.objective = evaluator.task, objective_of(evaluator.task)
        stepped = {} if shards is None else shards.local
        self.optimizer = make_optimizer(self.model, settings.training, settings.memory.optimizer_in_backward, stepped)
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.learning_rate = settings.training.learning_rate
        self.loss_scale = self.runtime.loss_scale()
        self.stepped_in_backward = self._stepped_in_backward()
        self.compiled: CompiledLayers | None = None
        self.recorded: RecordedPasses | None = None
        self.layers: list[InUse] = []  # in every pass
        self.late: list[LateGradients] = []  # what adds its gradients once a backward pass has ended
        self._idle: Batch | None = None
        self._passes_left = 0
        self._drops_casts = False
        # through `found_inf` a step is skipped without a sync; an optimizer without it needs the value on the host
        self.skips_on_device = self.runtime.skips_steps_on_device and takes_found_inf(self.optimizer)
        if self.stepped_in_backward is not None:
            self.stepped_in_backward.skips_on_device = self.skips_on_device

    # --- before the first step ---

    def prepare(self, planner: WindowPlanner) -> None:
        """Allocate the optimizer's states, and compile the model's layers if that pays.

        Args:
            planner: Makes a sample micro-batch to compile with.

        Raises:
            OutOfMemory: The states do not fit, or memory ran out during a compilation that the user asked for.
            SettingsError: `training.torch_compile` is on and the layers cannot be compiled.
        """
        with reraise_oom(self.memory, "옵티마이저의 상태가 메모리에 들어가지 않습니다."):
            allocate_states(self.optimizer)
        for line in stepping_lines(self.model, self.settings.training):
            _log.info("%s", line)
        if self.shards is not None:
            self._idle = planner.idle()
            self._try_heaviest(planner)
            return
        self.memory.keep_freed_blocks()
        if self.runtime.is_cuda:
            self.layers.append(SmallTables(self.model))
        self._compile_if_it_pays(planner)
        if self.compiled is not None:
            self.layers.append(self.compiled)
        elif self.runtime.is_cpu:  # compiled code has its own dropout and casts
            self.layers += [QuickDropout(self.model), SharedCasts(self.model)]
        elif self.stepped_in_backward is None:
            copies = WeightCopies(linear_layers(self.model))
            self.layers += [copies, SharedCasts(self.model, copies.of)]
            self.late.append(copies)
        if self.compiled is None and are_recorded(self.settings, self.task, planner.layout, self.runtime):
            self.recorded = RecordedPasses(self.trained, self._passes, CudaGraphs(self.runtime.device))
        if self.runtime.is_cpu and self.stepped_in_backward is None:
            self._add_late_gradients()

    def _add_late_gradients(self) -> None:
        """Let the gradients of the vocabulary be added after each backward pass: the head's first, which is dense."""
        head, late = late_head_of(self.model), list[LateGradients]()
        if head is not None:
            late.append(LaterGradient(head, self.memory.trim_heap))
            self._drops_casts = not self.settings.memory.gradient_checkpointing  # which casts anew in the backward pass
        late.append(RowGradients(self.model))
        self.layers += late
        self.late += late

    def _compile_if_it_pays(self, planner: WindowPlanner) -> None:
        asked, epochs = self.settings.training.torch_compile, self.settings.training.epochs
        tokens = int(planner.examples.lengths.sum()) * epochs
        if not is_worth_compiling(self.settings, self.model, self.runtime.precision, planner.layout, tokens):
            return
        if asked is None and planner.saved_by_sharing() > _MORE_THAN_COMPILING:
            return
        try:
            self._compile_layers(planner.sample())
        except (SettingsError, OutOfMemory) as error:
            if asked:
                raise
            _log.info("층을 컴파일하지 않고 학습합니다. %s (training.torch_compile)", error.what)

    def _compile_layers(self, sample: Batch) -> None:
        """Compile by a pass over a micro-batch like those of the run, and drop its gradients."""
        compiled = CompiledLayers(self.model)
        reraise = reraise_oom(self.memory, "층을 컴파일하는 동안 메모리가 부족했습니다.")
        with reraise, measured_in_backward(self.model):
            compiled.compile(lambda: self.accumulate([sample], self.objective.counts([sample]), 0))
        self.compiled = compiled

    def _try_heaviest(self, planner: WindowPlanner) -> None:
        """Lower the token budget until the heaviest micro-batch fits: a sharded window cannot be taken again."""
        while True:
            batch, failed = planner.heaviest(self.memory.token_budget), None
            try:
                self.accumulate([batch], self.objective.counts([batch]), 0)
            except MAY_BE_OUT_OF_MEMORY as error:
                if not is_out_of_memory(error):
                    raise
                failed = batch
            verdict = vote(self.runtime, failed)
            self.drop_gradients()
            if not verdict.tokens:
                return
            assert self.shards is not None
            self.shards.forget_pass()
            self.memory.shrink(batch.budgeted_tokens(), batch.examples())

    # --- the gradient ---

    def set_learning_rate(self, lr: float) -> None:
        """Set the learning rate of the next step; layers below the head may have a share of it."""
        self.learning_rate = lr
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]

    def gradient(self, ready: ReadyWindow, step: int) -> WindowGradient:
        """Compute the gradient of a window. It is the same for every cut into micro-batches.

        If memory runs out, drop the gradients and cut the window into smaller micro-batches.

        Args:
            ready: The window and its micro-batches.
            step: Number of the step, from 0; it seeds dropout.

        Returns:
            The gradient.

        Raises:
            OutOfMemory: Not even one example fits.
        """
        if isinstance(self.optimizer, ChunkedOptimizer):
            shard = 0 if self.shards is None else self.shards.number
            self.optimizer.seed_rounding(self.settings.training.seed, step, shard)
        window = ready.window
        if ready.token_budget != self.memory.token_budget:  # memory ran out after the window was planned
            ready = self.plan(window)
        batches = ready.batches
        counts = self.runtime.totals(self.objective.counts(batches))
        while (made := self._unless_out_of_memory(self._equally_many(batches), counts, step)) is None:
            batches = self.plan(window).batches
        sums, norm = made
        return WindowGradient(self.runtime.summed(sums), counts, batches, norm)

    def _unless_out_of_memory(
        self, batches: list[Batch], counts: Sequence[float], step: int
    ) -> tuple[torch.Tensor, torch.Tensor | None] | None:
        """Return what `_backward` returns; None where memory ran out in a process, which has a lower budget now."""
        made, failed, verdict = None, None, None
        try:
            made = self._backward(batches, counts, step)
        except PeerRanOut as peer:
            verdict = peer.verdict
        except MAY_BE_OUT_OF_MEMORY as error:
            if not is_out_of_memory(error):
                raise
            if self.shards is not None:  # the others wait for this process inside a pass
                raise self.memory.ran_out("학습하는 도중에 메모리가 부족해졌습니다.") from error
            if self.recorded is not None and self.recorded.forget():  # with the memory that they hold it may fit
                self.drop_gradients()
                return None
            failed = max(batches, key=lambda batch: batch.budgeted_tokens())
        verdict = verdict or vote(self.runtime, failed)
        if not verdict.tokens:
            return made
        self.drop_gradients()
        if verdict.single:
            self.memory.shrink(verdict.single, examples=1)  # raises, in every process
        if failed is not None:
            self.memory.shrink(failed.budgeted_tokens(), failed.examples())
        else:
            _log.warning("다른 프로세스의 메모리가 부족하여 이 스텝을 다시 계산합니다. 결과는 달라지지 않습니다.")
        return None

    def _equally_many(self, batches: list[Batch]) -> list[Batch]:
        """Add idle micro-batches where the model is sharded: every pass gathers weights from all processes."""
        if self.shards is None or self._idle is None:
            return batches
        return batches + [self._idle] * (int(self.runtime.maximum(len(batches))) - len(batches))

    def drop_gradients(self) -> None:
        """Drop all gradients."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.shards is not None:
            self.model.zero_grad(set_to_none=True)

    def accumulate(self, batches: list[Batch], counts: Sequence[float], step: int) -> torch.Tensor:
        """Add the gradient of these micro-batches to the parameters; return the objective's sums."""
        self.runtime.seed_step(self.settings.training.seed, step)
        if self.recorded is not None:
            if len(batches) == 1:
                return self.recorded.sums(batches[0], counts, self.loss_scale.value)
            self.recorded.begin()
        return self._passes(batches, counts)

    def _passes(self, batches: list[Batch], counts: Sequence[float]) -> torch.Tensor:
        """Compute forward and backward of micro-batches one after the other; see `accumulate`."""
        self._passes_left = len(batches)
        with ExitStack() as stack:
            stack.enter_context(self.runtime.adding_in_one_order())
            stack.enter_context(self.runtime.autocast())  # around the whole window, so that weights are cast once
            for layers in self.layers:
                stack.enter_context(layers.in_use())
            return self.objective.accumulate(self.model, batches, counts, self)

    @contextmanager
    def on_device(self, batch: Batch) -> Iterator[Batch]:
        """Move a batch to the device; inside the block the model computes it in its layout."""
        batch = self.runtime.on_device(batch)
        with without_padding(self.model, batch.dense):
            yield batch

    def phase(self, name: Literal["forward", "backward"]) -> AbstractContextManager[None]:
        """Return a context that counts its time as this phase of a step."""
        return self.profile.phase(name)

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of a loss under fp16's loss scale. Objectives call it once for each micro-batch."""
        self._passes_left -= 1
        if self.shards is not None:
            self.shards.sum_gradients(is_last=self._passes_left == 0)
        if self._passes_left == 0 and self._drops_casts:
            torch.clear_autocast_cache()  # casts of weights go as the backward pass goes, and not at the window's end
        self.loss_scale.scaled(loss).backward()
        for part in self.late:
            part.add()

    @contextmanager
    def without_gradients(self) -> Iterator[None]:
        """Compute without gradients, and drop the casts of weights that autocast keeps: they have none either."""
        try:
            with torch.no_grad():
                yield
        finally:
            torch.clear_autocast_cache()

    def summed(self, value: torch.Tensor) -> torch.Tensor:
        """Return the sum of the processes' values."""
        check_peers(self.runtime)
        return self.runtime.summed(value)

    def gathered(self, tensor: torch.Tensor, facts: _T) -> tuple[list[tuple[torch.Tensor, _T]], int]:
        """Return the tensor and the facts of every process, and the rank of this one."""
        if self.runtime.processes == 1:
            return [(tensor, facts)], 0
        check_peers(self.runtime)
        return self.runtime.by_process((tensor.cpu(), facts)), self.runtime.process

    def _backward(
        self, batches: list[Batch], counts: Sequence[float], step: int
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return this process's sums, and the gradient's norm where the backward pass consumed the gradient."""
        if self.stepped_in_backward is None or len(batches) > 1:
            return self.accumulate(batches, counts, step), None
        if self.settings.training.max_grad_norm is None:
            consuming = stepped_in_backward(self.model, self.stepped_in_backward, scale=None)
        else:
            consuming = measured_in_backward(self.model)
        with consuming as norm:
            sums = self.accumulate(batches, counts, step)
        return sums, norm.total()

    # --- clipping ---

    def clip(self, gradient: WindowGradient) -> torch.Tensor:
        """Sum the gradient over processes and clip it to `training.max_grad_norm`.

        Args:
            gradient: The window's gradient.

        Returns:
            The L2 norm of the whole window's gradient before clipping, a scalar on the device.
        """
        if gradient.consumed_norm is not None:  # `update` clips in a second backward pass
            return gradient.consumed_norm
        limit = self.settings.training.max_grad_norm
        with self.profile.phase("optimizer"):
            if self.shards is not None:
                return self.shards.clip(limit)
            # first: an overflow in one process must skip the step in all
            self.runtime.sum_gradients(self.trained)
            self.loss_scale.unscale([p.grad for p in self.trained if p.grad is not None])
            gradients = [p.grad for p in self.trained if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
            if limit is not None:
                self._scale(gradients, clipping_factor(norm, limit))
            return norm

    def _scale(self, gradients: list[torch.Tensor], factor: torch.Tensor) -> None:
        """Multiply gradients by a factor; on a CPU torch's fused AdamW does so in its own pass over float32 ones."""
        takes_factor = isinstance(self.optimizer, torch.optim.AdamW) and factor.dtype == torch.float32
        if self.runtime.is_cpu and takes_factor:
            self.optimizer.grad_scale = factor.reciprocal()  # type: ignore[attr-defined]
        else:
            torch._foreach_mul_(gradients, factor)

    # --- the update ---

    def update(self, gradient: WindowGradient, norm: torch.Tensor, step: int) -> StepResult:
        """Step the weights and drop the gradient. A step whose loss or norm is not finite is skipped."""
        overflowed = False
        with self.profile.phase("optimizer"):
            if gradient.consumed_norm is None:
                overflowed = self._apply(gradient.loss_sum, norm)
            else:
                self._apply_in_backward(gradient, gradient.consumed_norm, step)
        tokens = sum(batch.tokens for batch in gradient.batches)
        padded = sum(batch.computed_tokens() for batch in gradient.batches)
        lr = self.learning_rate
        uncompiled = 0 if self.compiled is None else self.compiled.take_uncompiled()
        return StepResult(gradient.sums, gradient.counts[0], norm, lr, tokens, padded, overflowed, uncompiled)

    def _apply(self, loss_sum: torch.Tensor, norm: torch.Tensor) -> bool:
        """Step with the parameters' gradients; return whether fp16 overflowed."""
        is_finite, overflowed = torch.isfinite(loss_sum) & torch.isfinite(norm), False
        if self.skips_on_device:
            self.optimizer.found_inf = (~is_finite).float()  # type: ignore[attr-defined]
            self._step_weights()
        elif bool(is_finite):
            self._step_weights()
            self.loss_scale.count_good_step()
        elif self.loss_scale.can_shrink() and math.isfinite(float(loss_sum)):
            _log.debug("fp16 범위를 넘은 기울기가 있어 loss scale을 낮춥니다.")
            self.loss_scale.shrink()
            overflowed = True
        self.drop_gradients()
        return overflowed

    def _apply_in_backward(self, gradient: WindowGradient, norm: torch.Tensor, step: int) -> None:
        """Apply a clipped gradient in a second backward pass: its norm is known only after the first."""
        limit, optimizer = self.settings.training.max_grad_norm, self.stepped_in_backward
        if limit is None or optimizer is None:
            return
        is_finite = torch.isfinite(gradient.loss_sum) & torch.isfinite(norm)
        if self.skips_on_device:
            optimizer.found_inf = (~is_finite).float()
        elif not bool(is_finite):
            return
        self.memory.trim_heap()  # free blocks of the first pass do not fit what the second one allocates
        with stepped_in_backward(self.model, optimizer, clipping_factor(norm, limit)):
            self.accumulate(gradient.batches, gradient.counts, step)

    def _step_weights(self) -> None:
        """Step the optimizer. It allocates nothing; if it fails nevertheless, the weights must not be saved."""
        try:
            self.optimizer.step()
        except MAY_BE_OUT_OF_MEMORY as error:
            if not is_out_of_memory(error):
                raise
            raise HalfStep(
                "옵티마이저가 가중치를 업데이트하는 도중에 메모리가 부족해졌습니다.",
                where=self.memory.describe(),
                remedy="가중치가 반만 바뀌었을 수 있어 저장하지 않았습니다. --resume으로 체크포인트에서 이어 가세요.",
            ) from error

    def _stepped_in_backward(self) -> ChunkedOptimizer | None:
        """Return the optimizer if it steps inside the backward pass, else None; raise SettingsError if it cannot."""
        if not (self.settings.memory.optimizer_in_backward and isinstance(self.optimizer, ChunkedOptimizer)):
            return None
        if self.runtime.processes > 1 or self.runtime.precision == "fp16":
            raise SettingsError(
                "backward 중의 업데이트는 프로세스가 하나이고 fp16을 쓰지 않을 때만 할 수 있습니다.",
                where="memory.optimizer_in_backward: true",
                remedy="memory.optimizer_in_backward를 false로 두세요.",
            )
        return self.optimizer
