"""Loading a model onto the devices: whole on each, or divided among the processes as `distributed.shard` says."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch

from exceptions import ModelError, SettingsError, first_line_of
from finetuning.config.schema import Settings
from finetuning.device.allocator import map_large_blocks
from finetuning.device.late_cast import casting_late
from finetuning.device.outline import Values, outline_of
from finetuning.device.runtime import Runtime
from finetuning.device.sharding import divide
from finetuning.models.adapters import stacks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)


def placed(load: Callable[[], PreTrainedModel], settings: Settings, runtime: Runtime) -> PreTrainedModel:
    """Load a model, whole or as this process's part of it.

    A divided model is loaded by the main process alone, its files mapped into memory. The others get its outline,
    and each its part of every weight, one block at a time; weights in another dtype than the run's are cast then.

    Args:
        load: Loads the model.
        settings: The settings in force.
        runtime: The processes and their devices.

    Returns:
        The model on the device.

    Raises:
        SettingsError: The run computes in fp16, and the model would have to be divided.
        ModelError: The model cannot be handed to other processes.
    """
    mode = settings.distributed.shard
    if mode == "none" or runtime.processes == 1:
        model = load()
        model.to(runtime.device)  # type: ignore[arg-type]
        return model
    if runtime.precision == "fp16":
        raise SettingsError(
            "이 GPU는 bfloat16을 지원하지 않습니다. float16으로는 가중치를 나누어 학습하지 않습니다.",
            where=f"distributed.shard: {mode}, memory.mixed_precision: true",
            remedy="memory.mixed_precision을 false로 하거나, distributed.shard를 none으로 두세요.",
        )
    if runtime.is_cpu:
        map_large_blocks()  # what is freed between the parts that stay would fill the heap
    if settings.model.quantization is None:  # quantised weights are read in the run's dtype first
        load = casting_late()(load)
    whole = runtime.together(load if runtime.is_main else lambda: None)
    outline = runtime.on_main(partial(_outline_of, whole))
    divided: PreTrainedModel = pickle.loads(outline)  # of the main process of this very group
    blocks = [block for stack in stacks(divided).values() for block in stack]
    divide(divided, blocks, _own_head(divided), mode, runtime, Values(divided, whole, runtime).fill)
    return divided


def _outline_of(model: PreTrainedModel | None) -> bytes:
    assert model is not None  # in the main process
    try:
        return outline_of(model)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ModelError(
            f"이 모델은 여러 프로세스에 나누어 올릴 수 없습니다: {first_line_of(error)}",
            where=f"model.name: {model.config.name_or_path}, distributed.shard",
            remedy="모델이 카드 하나에 들어가면 distributed.shard를 none으로 두세요.",
        ) from error


def tell_of_sharding(settings: Settings, runtime: Runtime) -> None:
    """Log how many processes divide the weights, or that one process alone has nothing to divide them with."""
    mode = settings.distributed.shard
    if mode == "none":
        return
    if runtime.processes == 1:
        _log.warning(
            "프로세스가 하나여서 가중치를 나누지 않습니다. 나누려면 torchrun --nproc_per_node 카드_수로 실행하세요. "
            "(distributed.shard: %s)", mode,
        )  # fmt: skip
        return
    shares = runtime.processes if mode == "full" else runtime.processes_here
    _log.info("가중치, 기울기, 옵티마이저의 상태를 프로세스 %d개에 나누어 올립니다. (distributed.shard)", shares)


def _own_head(model: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the head over the vocabulary where it shares no weight with another module."""
    head: torch.nn.Module | None = model.get_output_embeddings()  # type: ignore[operator]
    if head is None:
        return []
    own = {id(parameter) for parameter in head.parameters()}
    inside = set(head.modules())
    shared = {id(p) for module in model.modules() if module not in inside for p in module.parameters(recurse=False)}
    return [] if own & shared or not own else [head]
