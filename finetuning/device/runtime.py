"""The runtime of a process: its device, precision, seeds and the group of processes that it belongs to."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from exceptions import SettingsError
from finetuning.device.launch import check_launch, explaining_no_meeting, join_anew, told_if_waiting
from finetuning.device.loss_scale import LossScale
from finetuning.device.peers import is_elastic, is_restarted
from finetuning.device.reduction import sum_in_buckets
from finetuning.types import NO_CARD, Card

if TYPE_CHECKING:
    from accelerate import Accelerator

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_WAIT = timedelta(hours=4)


class HasTensors(Protocol):
    """Something that holds tensors, such as a Batch."""

    def mapped(self, convert: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        """Return the same with each tensor converted."""


_H = TypeVar("_H", bound=HasTensors)


@dataclass
class Pinning:
    """Puts batches into page-locked host memory, and gives up after the first failure.

    Attributes:
        works: Whether it has not failed yet.
    """

    works: bool = True

    def pinned(self, batch: _H) -> _H:
        """Return the batch in page-locked memory, or the batch itself where the system gives none."""
        if not self.works:
            return batch
        try:
            return batch.mapped(lambda tensor: tensor.pin_memory())
        except RuntimeError as error:
            self.works = False
            _log.warning(
                "GPU로 복사할 메모리를 고정(pin)하지 못했습니다. 조금 느려지지만 결과는 같습니다. (%s)",
                next(iter(str(error).splitlines()), type(error).__name__),
            )
            return batch


@dataclass(frozen=True)
class Runtime:
    """Answers every question about devices, precision, seeds and processes.

    Attributes:
        accelerator: accelerate's object for this process. No other module asks it.
        hosts: The group in which processes exchange values that the host knows; None for that of all processes.
        wait: How long a process waits for the others before it gives up.
        is_again: Whether a launcher has started the group before, as far as this process knows.
        pinning: Puts batches into memory that a GPU copies from by itself.
    """

    accelerator: Accelerator
    hosts: dist.ProcessGroup | None = None
    wait: timedelta = _WAIT
    is_again: bool = False
    pinning: Pinning = field(default_factory=Pinning, kw_only=True)

    # --- the device ---

    @property
    def device(self) -> torch.device:
        """The device that the model computes on."""
        device: torch.device = self.accelerator.device
        return device

    @property
    def is_cpu(self) -> bool:
        """Whether the model computes on the CPU."""
        return self.device.type == "cpu"

    @property
    def is_cuda(self) -> bool:
        """Whether the model computes on a GPU through CUDA, which the host does not wait for."""
        return self.device.type == "cuda"

    @property
    def device_name(self) -> str:
        """A GPU's product name, or the type of another device, such as `cpu`."""
        return torch.cuda.get_device_name(self.device) if self.is_cuda else self.device.type

    def wait_for_device(self) -> None:
        """Wait until a GPU has computed what it was given; other devices have already."""
        if self.is_cuda:
            torch.cuda.synchronize(self.device)

    @property
    def card(self) -> Card:
        """What the GPU is, for the choice of attention's kernels."""
        if not self.is_cuda:
            return NO_CARD
        has_triton = importlib.util.find_spec("triton") is not None
        return Card(torch.cuda.get_device_capability(self.device), self.precision, has_triton)

    @property
    def skips_steps_on_device(self) -> bool:
        """Whether torch's fused AdamW skips a step through `found_inf` here, so that the host does not wait.

        In fp16 the host must know of each overflow, to change the loss scale.
        """
        return (self.is_cuda or self.is_cpu) and self.precision != "fp16"

    def on_device(self, batch: _H) -> _H:
        """Return a batch with its tensors on the device."""
        return batch.mapped(lambda tensor: tensor.to(self.device, non_blocking=True))

    def pinned(self, batch: _H) -> _H:
        """Return a batch that can be copied to a GPU without waiting; on other devices the batch itself."""
        return self.pinning.pinned(batch) if self.is_cuda else batch

    # --- precision ---

    @property
    def precision(self) -> str:
        """Autocast's precision: `bf16`, `fp16` or `no`."""
        return str(self.accelerator.mixed_precision)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which a run computes."""
        context: AbstractContextManager[Any] = self.accelerator.autocast()
        return context

    @contextmanager
    def generating(self) -> Iterator[None]:
        """Run the block as texts are generated: without gradients, and with one cast of each weight for all tokens.

        Autocast keeps no casts in inference mode, so that each token would cast the whole model anew. It keeps those
        of float32 weights that are not frozen; a frozen base beside an adapter is in the run's precision already.
        """
        with torch.inference_mode(False), torch.no_grad(), self.autocast():
            yield

    def loss_scale(self) -> LossScale:
        """Return a new loss scale for fp16; in other precisions one that is switched off."""
        return LossScale(is_enabled=self.precision == "fp16")

    # --- seeds ---

    def seed_model(self, seed: int) -> None:
        """Seed torch so that a new head gets the same random weights in every run of this seed."""
        torch.manual_seed(seed)

    def seed_step(self, seed: int, step: int) -> None:
        """Seed dropout by run, step and process, so that a resumed run draws what a run without a stop draws."""
        sequence = np.random.SeedSequence([seed, step, self.process])
        torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))

    @contextmanager
    def adding_in_one_order(self) -> Iterator[None]:
        """Run the block, a pass of training, with kernels that add in one order, where the run asks for such kernels.

        Those of attention do so only where torch may not just warn. What lacks such a kernel is an error inside the
        block, and a warning elsewhere: drawing texts, say, which changes no weight.

        Raises:
            SettingsError: An operation of the block has no such kernel.
        """
        if not torch.are_deterministic_algorithms_enabled():
            yield
            return
        torch.use_deterministic_algorithms(True)
        try:
            yield
        except RuntimeError as error:
            if "does not have a deterministic implementation" not in str(error):
                raise
            raise SettingsError(
                f"더하는 순서를 고정할 수 없는 연산이 이 모델에 있습니다: {str(error).split()[0]}",
                where="training.deterministic: true",
                remedy="training.deterministic을 false로 두세요. 그러면 실행할 때마다 마지막 자리가 다를 수 있습니다.",
            ) from error
        finally:
            torch.use_deterministic_algorithms(True, warn_only=True)

    # --- processes ---

    @property
    def process(self) -> int:
        """Rank of this process, from 0."""
        return int(self.accelerator.process_index)

    @property
    def processes(self) -> int:
        """Number of processes that train one model."""
        return int(self.accelerator.num_processes)

    @property
    def processes_here(self) -> int:
        """Number of those processes that run on this machine."""
        return int(os.environ.get("LOCAL_WORLD_SIZE", self.processes))

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and logs."""
        return bool(self.accelerator.is_main_process)

    @property
    def is_first_here(self) -> bool:
        """Whether this process is the first one of its machine."""
        return bool(self.accelerator.is_local_main_process)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Run the block in the main process first, then in the first one of each other machine, then in the others.

        So one process a machine prepares what lies on the machine's own disk, and one of all what lies on a shared one.
        """
        turn = 0 if self.is_main else 1 if self.is_first_here else 2
        for _ in range(turn):
            self._meet()
        yield
        for _ in range(2 - turn):
            self._meet()

    def _meet(self) -> None:
        if self.processes > 1:
            dist.barrier(group=self.hosts)

    def with_own_group(self) -> Runtime:
        """Return this runtime with a group of hosts for what a thread exchanges; every process has to call it."""
        return self if self.processes == 1 else replace(self, hosts=dist.new_group(backend="gloo", timeout=self.wait))

    def totals(self, values: Sequence[float]) -> tuple[float, ...]:
        """Return the sum of the processes' values for each of them. Hosts meet here; no device is waited for."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def maximum(self, value: float) -> float:
        """Return the largest of the processes' values. Hosts meet here; no device is waited for."""
        return self.maxima([value])[0]

    def maxima(self, values: Sequence[float]) -> tuple[float, ...]:
        """Return the largest of the processes' values for each of them; see `maximum`."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def summed(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the sum of the processes' tensors, which have one shape and dtype."""
        if self.processes == 1:
            return tensor
        result = tensor.clone()
        dist.all_reduce(result)
        return result

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Replace each parameter's gradient by the sum of the processes' gradients.

        A parameter without a gradient adds zeros. One that has none in any process keeps none, so that optimizers
        leave it out as they do in a run of one process.
        """
        if self.processes == 1:
            return
        has = self._reduced([float(one.grad is not None) for one in parameters], dist.ReduceOp.MAX)
        used = [one for one, is_used in zip(parameters, has, strict=True) if is_used]
        for one in used:
            if one.grad is None:
                one.grad = torch.zeros_like(one)
        sum_in_buckets([one.grad for one in used if one.grad is not None])

    def gathered(self, mine: list[_T]) -> list[_T]:
        """Return the processes' lists as one, in the order of their ranks."""
        return mine if self.processes == 1 else [one for part in self.by_process(mine) for one in part]

    def by_process(self, mine: _T) -> list[_T]:
        """Return the processes' values in the order of their ranks."""
        if self.processes == 1:
            return [mine]
        everyone: list[Any] = [None] * self.processes
        dist.all_gather_object(everyone, mine, group=self.hosts)
        return everyone

    def together(self, work: Callable[[], _T]) -> _T:
        """Do the work in every process; raise the error of the first one that had one, in all of them."""
        if self.processes == 1:
            return work()
        made, error = None, None
        try:
            made = work()
        except Exception as own:  # of any kind: the others wait
            error = own
        first = next((one for one in self.by_process(error) if one is not None), None)
        if first is not None:
            raise first
        return made  # type: ignore[return-value]

    def on_main(self, work: Callable[[], _T]) -> _T:
        """Do the work in the main process alone; return its result, or raise its error, in every process."""
        return self.from_main(self.together(work if self.is_main else lambda: None))  # type: ignore[return-value]

    def from_main(self, value: _T) -> _T:
        """Return the main process's value in every process."""
        return self.from_process(0, lambda: value)

    def from_process(self, source: int, make: Callable[[], _T]) -> _T:
        """Make a value in one process, and return it in every process."""
        if self.processes == 1:
            return make()
        values: list[Any] = [make() if source == self.process else None]
        dist.broadcast_object_list(values, src=source, group=self.hosts)
        return values[0]  # type: ignore[no-any-return]

    def spread(
        self, tensor: torch.Tensor | None, shape: Sequence[int], dtype: torch.dtype, source: int
    ) -> torch.Tensor:
        """Return one process's tensor in every process, in CPU memory.

        Args:
            tensor: The tensor, in the process that has it; others need not know it.
            shape: Its shape.
            dtype: Its dtype.
            source: Rank of the process that has it.

        Returns:
            The tensor; contiguous.
        """
        mine = source == self.process and tensor is not None
        whole = tensor.contiguous() if mine else torch.empty(tuple(shape), dtype=dtype)  # type: ignore[union-attr]
        if self.processes > 1 and whole.numel():
            dist.broadcast(whole.view(-1).view(torch.uint8), src=source, group=self.hosts)
        return whole

    def _reduced(self, values: Sequence[float], operation: Any) -> tuple[float, ...]:
        if self.processes == 1:
            return tuple(map(float, values))
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, operation, group=self.hosts)
        return tuple(tensor.tolist())


def start_runtime(precision: str, deterministic: bool, wait: timedelta = _WAIT) -> Runtime:
    """Join the group of processes, choose the device, and set its kernels.

    Args:
        precision: Autocast's precision, `bf16`, `fp16` or `no`.
        deterministic: Whether kernels must give the same bits in every run, as far as torch has such kernels.
        wait: How long a process waits for the others before it gives up.

    Returns:
        The runtime of this process.

    Raises:
        SettingsError: The environment has parts of another launch.
        ResourceError: The processes do not find each other.
    """
    check_launch(os.environ)
    from accelerate import Accelerator, InitProcessGroupKwargs

    on_cpu = not torch.accelerator.is_available() or has_apple_gpu()  # explicit: processes find each other on CPUs
    switch_cudnn_attention_off()
    choose_kernels(deterministic)
    with told_if_waiting(), explaining_no_meeting():
        is_again = is_elastic() and join_anew("gloo" if on_cpu else "nccl", wait)
        group = InitProcessGroupKwargs(timeout=wait)
        accelerator = Accelerator(mixed_precision=precision, cpu=on_cpu, kwargs_handlers=[group])
    is_again = is_again or is_restarted()
    if accelerator.num_processes == 1 or on_cpu:
        return Runtime(accelerator, None, wait, is_again)
    return Runtime(accelerator, dist.new_group(backend="gloo", timeout=wait), wait, is_again)


def has_apple_gpu() -> bool:
    """Return whether the only accelerator is an Apple GPU (MPS). It is not used: nothing here was ever run on one."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return device is not None and device.type == "mps"


def choose_kernels(deterministic: bool) -> None:
    """Choose between kernels that always add in one order and faster ones; those without a choice stay as they are."""
    if deterministic != torch.are_deterministic_algorithms_enabled():  # the call imports torch's compiler
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nothing reads it
    torch.backends.cudnn.deterministic = deterministic


def switch_cudnn_attention_off() -> None:
    """Keep torch from choosing cuDNN's attention, which builds a plan for every new shape.

    A micro-batch nearly always has a new shape. Measured on an H100 (torch 2.11, cuDNN 9.19): forward and backward of a
    new shape took 111 ms with it and 0.4 ms without, of a known shape 0.6 and 0.3 ms; a step of BERT-base on short
    texts took 357 and 75 ms.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)
