"""Passes that are recorded once as CUDA graphs and repeated, where micro-batches come back in the same shapes.

A step on short texts launches a thousand small kernels, and a fast GPU waits for each launch: BERT-base on 64 texts
kept an H200 busy for a tenth of the time. A graph launches them all at once. The kernels, their numbers and the draws
of dropout are those of a pass that is not recorded, so that it makes no difference which passes of a run are.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Protocol

import numpy as np
import torch

from exceptions import SettingsError, first_line_of
from finetuning.config.schema import Settings
from finetuning.device.oom import is_out_of_memory
from finetuning.device.runtime import Runtime
from finetuning.tasks.base import Task
from finetuning.types import Batch
from finetuning.windows.layouts import Filled, Layout

_log = logging.getLogger(__name__)
_MOST = 32  # recordings kept; each holds the arguments of all its kernels
_MOST_SEEN = 4096  # shapes that are remembered
_NO_PART = {"tokens", "made"}  # fields of a batch that no pass reads
_ALIKE = 1e-2  # relative difference of the norms of gradients that are the same but for rounding

Run = Callable[[list[Batch], Sequence[float]], torch.Tensor]


def are_recorded(settings: Settings, task: Task, layout: Layout, runtime: Runtime) -> bool:
    """Return whether a run's passes are recorded: where their shapes come back, and the host has no part in them.

    Args:
        settings: The settings of the run.
        task: The task.
        layout: Layout of the run's windows.
        runtime: The run's device and processes.

    Returns:
        Whether they are.
    """
    training, memory = settings.training, settings.memory
    has_part = memory.gradient_checkpointing or memory.optimizer_in_backward or settings.logging.profile
    return (
        training.cuda_graphs
        and not training.torch_compile
        and isinstance(layout, Filled)
        and task.objective == "summed"
        and settings.model.quantization is None
        and not has_part
        and runtime.is_cuda
        and runtime.processes == 1
    )


class Recorder(Protocol):
    """Records the work of a function."""

    def has_room(self) -> bool:
        """Whether there is memory for what a recorded pass keeps to itself."""

    def without_waits(self) -> AbstractContextManager[None]:
        """Return a context in which what waits for the device is a RuntimeError: a recording cannot hold it."""

    def record(self, work: Callable[[], torch.Tensor]) -> tuple[Callable[[], object], torch.Tensor]:
        """Record work, without doing it.

        Args:
            work: Computes a tensor.

        Returns:
            What does the work again, and the tensor in which its result is then.

        Raises:
            SettingsError: It cannot be recorded.
        """


@dataclass(frozen=True)
class _Recording:
    """A recorded pass.

    Attributes:
        batch: The tensors that it reads, on the device.
        repeat: Computes the pass on them.
        sums: The objective's sums of the pass that was repeated last.
    """

    batch: Batch
    repeat: Callable[[], object]
    sums: torch.Tensor

    def of(self, batch: Batch) -> torch.Tensor:
        """Compute the pass of a micro-batch; return the objective's sums."""
        for place, tensor in zip(tensors_of(self.batch), tensors_of(batch), strict=True):
            place.copy_(tensor, non_blocking=True)
        self.repeat()
        return self.sums.clone()


class RecordedPasses:
    """The passes of windows of one micro-batch each: recorded when their shape comes for the second time.

    Recorded passes add to gradients in place, so that those stay the same tensors from step to step.

    Args:
        trained: The parameters that are trained.
        run: Computes forward and backward of micro-batches, and adds their gradient to the parameters.
        recorder: Records.
    """

    def __init__(self, trained: Sequence[torch.nn.Parameter], run: Run, recorder: Recorder) -> None:
        self._trained, self._run, self._recorder = trained, run, recorder
        self._seen, self._recordings = set[Any](), dict[Any, _Recording]()
        self._gradients: dict[torch.nn.Parameter, torch.Tensor] = {}
        self._weights: tuple[int, ...] = ()  # where they are
        self._scale = 1.0
        self.is_off = False

    def __len__(self) -> int:
        return len(self._recordings)

    def sums(self, batch: Batch, counts: Sequence[float], scale: float) -> torch.Tensor:
        """Add the gradient of a window's only micro-batch to parameters without one; return the objective's sums.

        Args:
            batch: The micro-batch.
            counts: The window's counts.
            scale: fp16's loss scale.

        Returns:
            The sums, as of objectives' `accumulate`.
        """
        if self.is_off or batch.scores_places:
            return self._run([batch], counts)
        if scale != self._scale:  # a number of the recorded work
            self._recordings, self._scale = {}, scale
        key = (_facts_of(batch), tuple(counts))
        self.begin()
        found = self._recordings.get(key)
        if found is None and key in self._seen and len(self._recordings) < _MOST and self._recorder.has_room():
            found = self._recorded(batch, counts)
            if found is not None:
                self._recordings[key] = found
        if found is not None:
            return found.of(batch)
        if len(self._seen) == _MOST_SEEN:
            self._seen.clear()
        self._seen.add(key)
        sums = self._run([batch], counts)
        self._keep_gradients()
        return sums

    def begin(self) -> None:
        """Give the parameters the gradients that recordings add to, set to zero, where there are any."""
        weights = tuple(parameter.data_ptr() for parameter in self._trained)
        if weights != self._weights:  # a recording would read the old ones
            self._recordings, self._weights = {}, weights
        if self._gradients:
            torch._foreach_zero_(list(self._gradients.values()))
            for parameter, gradient in self._gradients.items():
                parameter.grad = gradient

    def forget(self) -> bool:
        """Give up all recordings, with their memory, for good; return whether there was any memory to give up."""
        held = bool(self._recordings or self._gradients)
        self._recordings, self._gradients, self.is_off = {}, {}, True
        return held

    def _keep_gradients(self) -> None:
        """Keep the tensors in which a pass left gradients; give up where passes leave them in other parameters."""
        if self.is_off:
            return
        left = {one: one.grad for one in self._trained if one.grad is not None}
        if self._gradients and left.keys() != self._gradients.keys():
            self.forget()
            return
        self._gradients = left

    def _recorded(self, batch: Batch, counts: Sequence[float]) -> _Recording | None:
        """Record a pass; None where that cannot be, or where the recording does not compute what the pass does."""
        device, gradients = self._trained[0].device, list(self._gradients.values())

        def plain() -> torch.Tensor:
            with self._recorder.without_waits():
                return self._run([batch], counts)

        try:
            expected = self._outcome(plain, gradients)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            self._give_up(f"GPU를 기다리는 연산이 있습니다: {first_line_of(error)}", gradients)
            return None
        place = batch.mapped(lambda tensor: tensor.to(device, copy=True, non_blocking=True))
        made = _Recording(place, *self._recorder.record(lambda: self._run([place], counts)))
        found = self._outcome(lambda: made.of(batch), gradients)
        if not bool(torch.isfinite(expected).all()):
            return None  # says nothing; such a step is skipped
        limit = _ALIKE * expected.abs().clamp(min=float(expected.abs().max()) * _ALIKE)
        if not bool(((found - expected).abs() <= limit).all()):
            self._give_up("기록한 계산의 결과가 달랐습니다.", gradients)
            return None
        if not self._recordings:
            _log.info("크기가 같은 배치의 계산을 CUDA graph로 기록해 되풀이합니다. (training.cuda_graphs)")
        return made

    def _give_up(self, reason: str, gradients: list[torch.Tensor]) -> None:
        self.forget()
        torch._foreach_zero_(gradients)
        _log.info("CUDA graph를 쓰지 않고 계산합니다. %s (training.cuda_graphs)", reason)

    def _outcome(self, compute: Callable[[], torch.Tensor], gradients: list[torch.Tensor]) -> torch.Tensor:
        """Return the sums and the norms of the gradients of a pass, (sums + parameters,), with the step's draws.

        Neither draws nor gradients are left of it.
        """
        device = gradients[0].device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            sums = compute()
        found = torch.stack([*sums.float().flatten(), *(one.float() for one in torch._foreach_norm(gradients))])
        torch._foreach_zero_(gradients)
        return found


def tensors_of(batch: Batch) -> list[torch.Tensor]:
    """Return a micro-batch's tensors, in one order."""
    found = list[torch.Tensor]()

    def see(tensor: torch.Tensor) -> torch.Tensor:
        found.append(tensor)
        return tensor

    batch.mapped(see)
    return found


def _facts_of(value: Any) -> Any:
    """Return what a recording depends on, beside the values of tensors: their shapes, and all that is on the host."""
    if isinstance(value, torch.Tensor):
        return tuple(value.shape), value.dtype
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, Mapping):
        return tuple((name, _facts_of(one)) for name, one in value.items())
    if is_dataclass(value):
        return tuple(_facts_of(getattr(value, one.name)) for one in fields(value) if one.name not in _NO_PART)
    return tuple(map(_facts_of, value)) if isinstance(value, tuple) else value


class CudaGraphs:
    """Records kernels of a GPU. All recordings share the memory of what is only needed inside a pass."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None

    def has_room(self) -> bool:
        """Whether the memory that a pass takes is free once more; see `Recorder.has_room`."""
        free, _ = torch.cuda.mem_get_info(self._device)
        allocated = torch.cuda.memory_allocated(self._device)
        needed = torch.cuda.max_memory_allocated(self._device) - allocated
        return free + torch.cuda.memory_reserved(self._device) - allocated > 2 * needed

    @contextmanager
    def without_waits(self) -> Iterator[None]:
        """Let torch refuse what waits for the device; see `Recorder.without_waits`."""
        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the mode is a prototype
            torch.cuda.set_sync_debug_mode("error")
            try:
                yield
            finally:
                torch.cuda.set_sync_debug_mode(before)

    def record(self, work: Callable[[], torch.Tensor]) -> tuple[Callable[[], object], torch.Tensor]:
        """Record work as a graph; see `Recorder.record`. Another thread may meanwhile pin the next window's memory.

        After a recording that fails, torch (2.11) takes the generator of random numbers for one that still records, so
        that a run cannot go on.
        """
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                result = work()
        except RuntimeError as error:
            raise SettingsError(
                f"학습의 계산을 CUDA graph로 기록하지 못했습니다: {first_line_of(error)}",
                where="training.cuda_graphs: true",
                remedy="--set training.cuda_graphs=false를 붙여 다시 실행하세요. 결과는 같고 조금 느려집니다.",
            ) from error
        self._pool = graph.pool()
        return graph.replay, result
