"""Memory: its limit, how much is in use, cleaning up, and what to do when it runs out."""

from __future__ import annotations

import errno
import gc
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exceptions import OutOfMemory, SettingsError
from finetuning.config.schema import Settings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)
_GIB = 1024**3
_NEARLY_FULL = 0.6
_CONTAINER_LIMITS = (  # cgroup version 2, and 1
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)

# What CUDA, cuDNN, cuBLAS and the CPU's allocators say when memory is gone.
_OUT_OF_MEMORY_WORDS = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "cudnn_status_alloc_failed",
    "cudnn_status_internal_error_device_allocation_failed",
    "cudnn_status_internal_error_host_allocation_failed",
    "cublas_status_alloc_failed",
    "failed to map segment",  # of a library that is loaded late
    "can't start new thread",  # its stack is memory, too
)
# oneDNN does not say why it could not make or run a kernel; of shapes that other kernels are made for, it is memory.
_OUT_OF_MEMORY_IN_ONEDNN = ("could not create a primitive", "could not execute a primitive")
_RETURNED_AT_ONCE = 2**20  # bytes
_RESERVED_LATER = 2**28  # bytes of addresses: the heaps of threads, and libraries; measured, 120 to 250 MiB
_M_MMAP_THRESHOLD = -3  # glibc's malloc.h


# What is_out_of_memory may be true of.
MAY_BE_OUT_OF_MEMORY = (RuntimeError, MemoryError, OSError, ImportError)


def prepare_allocator(settings: Settings) -> None:
    """Keeps memory from fragmenting over a long run; must run before torch is first imported.

    CUDA's allocator may grow its segments. On CPUs oneDNN keeps 1,024 compiled kernels, each for one shape; where every
    micro-batch has its own, resident memory grew by half a megabyte a step, and with 128 it stayed flat.
    """
    if settings.memory.optimize_memory_usage:
        os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")


def autocast_precision(settings: Settings) -> str:
    """What `mixed_precision` means here: bf16 where the device computes in it, else fp16 on CUDA, else no."""
    import torch

    if not settings.memory.mixed_precision:
        return "no"
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    has = [getattr(torch.cpu, name, lambda: False) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return "bf16" if any(check() for check in has) else "no"


def allow_tf32(precision: str) -> None:
    """Has CUDA compute what float32 matrix products remain by TF32, where a run computes in fewer bits anyway."""
    import torch

    if torch.cuda.is_available() and precision != "no":
        torch.backends.cuda.matmul.fp32_precision = "tf32"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of a device or of the machine is gone."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    text = str(error).lower()
    is_said = any(words in text for words in _OUT_OF_MEMORY_WORDS) or text in _OUT_OF_MEMORY_IN_ONEDNN
    return isinstance(error, RuntimeError | ImportError) and is_said


def out_of_memory(what: str, where: str, helping: Sequence[str]) -> OutOfMemory:
    """The error that ends a command for want of memory; helping: what to try, in order."""
    return OutOfMemory(what, where=where, remedy=f"차례대로 해 보세요: {' → '.join(helping)}")


def helping_to_train(settings: Settings, gradient_checkpointing: bool) -> list[str]:
    """The settings that would make training need less memory and are not in force, what changes least first."""
    wanted = (
        ("memory.mixed_precision: true", not settings.memory.mixed_precision),
        ("memory.optimize_memory_usage: true", not settings.memory.optimize_memory_usage),
        ("memory.gradient_checkpointing: true", not gradient_checkpointing),
        ("training.optimizer: adafactor", settings.training.optimizer != "adafactor"),
        ("model.dtype: bfloat16", settings.model.dtype != "bfloat16"),
        ("model.adapter.method: lora", settings.model.adapter.method == "none"),
        (_shorter(settings), True),
        ("더 작은 모델", True),
    )
    return [text for text, helps in wanted if helps]


def helping_to_use(settings: Settings) -> list[str]:
    """The same for a model that is only used: what saves gradients or the optimizer's memory is of no use there."""
    wanted = (
        ("memory.mixed_precision: true", not settings.memory.mixed_precision),
        ("generation.num_beams: 1", settings.generation.num_beams > 1),
        ("model.dtype: bfloat16", settings.model.dtype != "bfloat16"),
        (_shorter(settings), True),
        ("더 작은 모델", True),
    )
    return [text for text, helps in wanted if helps]


def helping_to_load(settings: Settings) -> list[str]:
    """The same for a model whose weights alone are too many."""
    quantised = "model.quantization: 4bit (model.adapter.method: lora와 함께)"
    wanted = (
        ("model.dtype: bfloat16", settings.model.dtype != "bfloat16"),
        (quantised, settings.model.quantization != "4bit"),
        ("더 작은 모델", True),
    )
    return [text for text, helps in wanted if helps]


def _shorter(settings: Settings) -> str:
    return f"data.max_length: {max(8, settings.data.max_length // 2)}"


def check_can_recompute(model: PreTrainedModel) -> None:
    """SettingsError where a model that is to have gradient checkpointing cannot."""
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise SettingsError(
            "이 모델은 gradient checkpointing을 하지 못합니다.",
            where="memory.gradient_checkpointing: true",
            remedy="memory.gradient_checkpointing을 null이나 false로 두세요.",
        )


class MemoryManager:
    """Watches one device's memory for a run, and holds the token budget that micro-batches are cut to.

    token_budget: padded tokens in a micro-batch at most; it starts at batch_size × max_length and only goes down.
    trains: whether the model is trained, and not only used.
    gradient_checkpointing: whether the model recomputes activations already, and so need not be told to.
    chosen: the settings, by their dotted names, that `optimize_memory_usage` chose; a resumed run goes on with them.
    """

    def __init__(self, settings: Settings, device: torch.device, max_length: int) -> None:
        import torch

        self.settings, self.device = settings, device
        self.token_budget = settings.data.batch_size * max_length
        self.trains = self.gradient_checkpointing = False
        self.chosen: dict[str, Any] = {}
        if device.type == "cuda":
            card = torch.cuda.current_device() if device.index is None else device.index  # torch wants a number
            torch.cuda.set_per_process_memory_fraction(settings.memory.max_gpu_memory_usage, card)

    def limit(self) -> int:
        """Bytes that this run may use: the card's share by `max_gpu_memory_usage`, or what the machine has.

        Of a machine the least of its memory, its container's and what `ulimit -v` leaves counts.
        """
        import psutil
        import torch

        if self.device.type == "cuda":
            total = torch.cuda.get_device_properties(self.device).total_memory
            return int(total * self.settings.memory.max_gpu_memory_usage)
        return min(int(psutil.virtual_memory().total), *_container_limits(), _address_limit())

    def used(self) -> int:
        """Bytes in use now: allocated on the GPU, or resident in this process."""
        import psutil
        import torch

        if self.device.type == "cuda":
            return torch.cuda.memory_allocated(self.device)
        return int(psutil.Process().memory_info().rss)

    def peak(self) -> int:
        """The most bytes that were in use: allocated on the GPU, or resident in this process (as used() on Windows)."""
        import torch

        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        try:
            import resource
        except ImportError:
            return self.used()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def describe(self) -> str:
        """One phrase on memory for the log."""
        name = "GPU 메모리" if self.device.type == "cuda" else "메모리"
        return f"{name} {self.used() / _GIB:.2f}/{self.limit() / _GIB:.1f} GiB (최대 {self.peak() / _GIB:.2f})"

    def recompute_activations(self, model: PreTrainedModel) -> None:
        """Turns gradient checkpointing on: a layer's activations are computed again in the backward pass.

        Raises SettingsError where the architecture does not have it.
        """
        check_can_recompute(model)
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self.gradient_checkpointing = True

    def after_step(self, step: int) -> None:
        """What is due after a step: `empty_cache_freq` gives unused blocks back, `cuda_cleanup_freq` cleans up."""
        import torch

        if _due(step, self.settings.memory.empty_cache_freq) and self.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.settings.memory.optimizer_in_backward:
            self.give_holes_back()
        if self.device.type == "cpu" and self.used() > _NEARLY_FULL * self.limit():
            self.clean_up()  # costs a little speed, so only where the heap's free blocks are in the way
        if _due(step, self.settings.training.cuda_cleanup_freq):
            self.clean_up()
            _log.info("스텝 %s: %s", f"{step:,}", self.describe())

    def give_holes_back(self) -> None:
        """Gives a CPU's heap's free blocks back, for runs that want the least memory: the next pass fills them anew.

        It costs time, as the pages have to be made again.
        """
        if self.device.type == "cpu" and sys.platform == "linux":
            _trim_heap()

    def clean_up(self) -> None:
        """Drops garbage that holds tensors, then gives unused blocks back to the device."""
        import torch

        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.ipc_collect()
            torch.cuda.empty_cache()
        self.give_holes_back()

    def ran_out(self, what: str) -> OutOfMemory:
        """The error for when nothing that is done here by itself is left."""
        if self.trains:
            helping = helping_to_train(self.settings, self.gradient_checkpointing)
        else:
            helping = helping_to_use(self.settings)
        return out_of_memory(what, self.describe(), helping)

    @contextmanager
    def told_as(self, what: str) -> Iterator[None]:
        """Has memory that ends within raise OutOfMemory, which says what it was for."""
        try:
            yield
        except MAY_BE_OUT_OF_MEMORY as error:
            if not is_out_of_memory(error):
                raise
            raise self.ran_out(what) from error

    def begin_with(self, budget: int) -> None:
        """Takes a budget for that of a machine on which memory ran out: on CPUs nothing is left in the heap there.

        Freed blocks of up to 32 MB would lie in it between others, where nothing else can have them: a run that was
        given 2.6 GB of addresses ended with not one example fitting, and came to its end without those blocks.
        """
        self.token_budget = min(self.token_budget, budget)
        if self.device.type == "cpu" and sys.platform == "linux":
            _return_blocks_at_once()

    def shrink_budget(self, largest: int, examples: int) -> None:
        """Halves the token budget after memory ran out on a micro-batch of `largest` padded tokens.

        Raises OutOfMemory where that micro-batch was a single example: nothing is left to cut.
        """
        if examples <= 1:
            raise self.ran_out(f"토큰 {largest:,}개짜리 예제 하나도 메모리에 들어가지 않습니다.")
        self.begin_with(max(1, min(self.token_budget, largest) // 2))
        self.clean_up()
        _log.warning(
            "메모리가 부족하여 micro-batch를 토큰 %s개 이하로 다시 나눕니다. 결과는 달라지지 않습니다.",
            f"{self.token_budget:,}",
        )


def _container_limits() -> Iterator[int]:
    """Bytes that the container may use, as far as it is told."""
    for file in _CONTAINER_LIMITS:
        try:
            yield int(file.read_text())
        except (OSError, ValueError):  # no such file, or "max"
            continue


def _address_limit() -> int:
    """Bytes that may be resident under `ulimit -v`: what is mapped and not used counts there, too."""
    import psutil

    try:
        import resource
    except ImportError:  # Windows
        return sys.maxsize
    addresses, _ = resource.getrlimit(resource.RLIMIT_AS)
    if addresses == resource.RLIM_INFINITY:
        return sys.maxsize
    now = psutil.Process().memory_info()
    return int(addresses - (now.vms - now.rss) - _RESERVED_LATER)


def _trim_heap() -> None:
    """Gives the free pages of glibc's heap back: freed blocks of up to 32 MB stay in it, which add up to much."""
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other libraries of C have no such call
    if trim is not None:
        trim(0)


def _return_blocks_at_once() -> None:
    """Has glibc give large blocks pages of their own, which go back when they are freed; making them takes time."""
    import ctypes

    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_MMAP_THRESHOLD, _RETURNED_AT_ONCE)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
