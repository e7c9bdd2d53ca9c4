"""Shard a model that is about to be trained, where `distributed.shard` asks for it."""

from __future__ import annotations

import logging

import torch

from exceptions import SettingsError
from finetuning.config.schema import Settings
from finetuning.device.runtime import Runtime
from finetuning.device.sharding import Shards, shard
from finetuning.inference.evaluator import Evaluator
from finetuning.models.adapters import stacks

_log = logging.getLogger(__name__)


def shards_of_model(evaluator: Evaluator, settings: Settings) -> Shards | None:
    """Divide the evaluator's model among the processes, in place, as `distributed.shard` says.

    Whatever runs the model on one process alone, such as trials of it, has to be done before.

    Args:
        evaluator: Holds the model and the group of processes.
        settings: The settings in force.

    Returns:
        This process's shards; None where the model stays whole, as in a run of one process.

    Raises:
        SettingsError: The run computes in fp16.
    """
    model, runtime, mode = evaluator.model, evaluator.runtime, settings.distributed.shard
    if mode == "none" or runtime.processes == 1:
        return None
    if runtime.precision == "fp16":
        raise SettingsError(
            "이 GPU는 bfloat16을 지원하지 않습니다. float16으로는 가중치를 나누어 학습하지 않습니다.",
            where=f"distributed.shard: {mode}, memory.mixed_precision: true",
            remedy="memory.mixed_precision을 false로 하거나, distributed.shard를 none으로 두세요.",
        )
    blocks = [block for stack in stacks(model).values() for block in stack]
    return shard(model, blocks, _own_head(model), mode, runtime)


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
    _log.info("가중치, 기울기, 옵티마이저의 상태를 프로세스 %d개가 나누어 가집니다. (distributed.shard)", shares)


def _own_head(model: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the head over the vocabulary where it shares no weight with another module."""
    head: torch.nn.Module | None = model.get_output_embeddings()  # type: ignore[operator]
    if head is None:
        return []
    own = {id(parameter) for parameter in head.parameters()}
    inside = set(head.modules())
    shared = {id(p) for module in model.modules() if module not in inside for p in module.parameters(recurse=False)}
    return [] if own & shared or not own else [head]
