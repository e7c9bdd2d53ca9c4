"""Checkpoints of a model that the processes divide: each writes its shards, the main process publishes them.

torch's Distributed Checkpoint writes and reads them as safetensors, so that nothing is unpickled and any number of
processes can read what another number has written.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exceptions import ModelError, ResourceError
from finetuning.checkpoints.background import BackgroundSaver
from finetuning.checkpoints.store import CheckpointStore, facts_of, shards_in, write_state
from finetuning.device.runtime import Runtime
from finetuning.files import discard, give_usual_mode, writing
from finetuning.types import Checkpoint

if TYPE_CHECKING:
    import torch

_FILE_BYTES = 2**26  # of a process
_MODEL, _OPTIMIZER = "model/", "optimizer/"


class TogetherSaver(BackgroundSaver):
    """Saves with all processes, before training goes on. Every process has to call each method.

    Args:
        store: Where checkpoints are written.
        runtime: The group of processes.
    """

    def __init__(self, store: CheckpointStore, runtime: Runtime) -> None:
        super().__init__(store)
        self.runtime = runtime

    def save(self, checkpoint: Checkpoint) -> None:
        """Save the state of all processes; see `BackgroundSaver.save`."""
        self.wait()
        self._step, self._error, self._is_reported = checkpoint.progress.step, None, False
        self._write(checkpoint)
        self.report()

    def _write(self, checkpoint: Checkpoint) -> None:
        store, runtime, target = self.store, self.runtime, self.store.path_of(checkpoint.progress.step)
        partial = runtime.from_main(store.partial_of(target))
        try:
            runtime.together(lambda: _main_alone(runtime, lambda: store.begin(partial, checkpoint), target, store))
            runtime.together(lambda: _write_shards(partial, checkpoint, runtime, target, store))
            names = [path.name for path in shards_in(partial, runtime.process)]
            facts = runtime.gathered(runtime.together(lambda: list(facts_of(partial, names).items())))

            def publish() -> None:
                write_state(partial, checkpoint, {}, dict(facts))
                store.publish(partial, target)

            runtime.together(lambda: _main_alone(runtime, publish, target, store))
            self._path = target
        except ResourceError as error:
            self._error = error
            if runtime.is_main:
                discard(partial)


def read_shards(folder: Path, model: Mapping[str, torch.Tensor], optimizer: Mapping[str, torch.Tensor]) -> None:
    """Read this process's part of a checkpoint into tensors, in place, however many processes have written it.

    Args:
        folder: The checkpoint.
        model: Trained weights and buffers by name: whole, or as this process's shards.
        optimizer: States by `<entry>/<parameter name>`, the same way.

    Raises:
        ModelError: The checkpoint is that of another model or optimizer.
    """
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint import HuggingFaceStorageReader

    into = _named(model, optimizer)
    reader = HuggingFaceStorageReader(str(folder))
    saved = {name: tuple(one.size) for name, one in reader.read_metadata().state_dict_metadata.items()}  # type: ignore[union-attr]
    different = sorted(
        name for name in {*saved, *into} if name not in into or saved.get(name) != tuple(into[name].shape)
    )
    if different:
        raise ModelError(
            f"체크포인트의 가중치가 이 모델의 것이 아닙니다: {', '.join(different[:3])} 등 {len(different):,}개",
            where=str(folder),
            remedy="처음 학습할 때의 모델과 어댑터, 옵티마이저 설정으로 이어서 학습하세요.",
        )
    with _quiet():
        dcp.load(into, storage_reader=reader, no_dist=not torch_is_grouped())


def torch_is_grouped() -> bool:
    """Return whether this process belongs to a group."""
    import torch.distributed as dist

    return dist.is_initialized()


def _write_shards(
    partial: Path, checkpoint: Checkpoint, runtime: Runtime, target: Path, store: CheckpointStore
) -> None:
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageWriter

    tensors = _named(checkpoint.model, checkpoint.optimizer)
    files = _files_of(tensors, runtime.processes)
    writer = HuggingFaceStorageWriter(str(partial), fqn_to_index_mapping=files, save_distributed=True)
    with _disk(target, store), _quiet():
        try:
            dcp.save(tensors, storage_writer=writer, process_group=runtime.hosts)
        except CheckpointException as error:
            raise next(iter(error.failures.values()))[0] from error
        give_usual_mode(shards_in(partial, runtime.process))


def _files_of(tensors: Mapping[str, torch.Tensor], processes: int) -> dict[str, int]:
    """Return the number of the file of each tensor, from 1. A file is made in memory, twice, before it is written."""
    found, number, size = dict[str, int](), 1, 0
    for name, tensor in tensors.items():
        share = tensor.numel() * tensor.itemsize // processes
        if size and size + share > _FILE_BYTES:
            number, size = number + 1, 0
        found[name], size = number, size + share
    return found


def _named(model: Mapping[str, torch.Tensor], optimizer: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    return {
        **{f"{_MODEL}{name}": tensor for name, tensor in model.items()},
        **{f"{_OPTIMIZER}{name}": tensor for name, tensor in optimizer.items()},
    }


def _main_alone(runtime: Runtime, work: Callable[[], None], target: Path, store: CheckpointStore) -> None:
    if runtime.is_main:
        with _disk(target, store):
            work()


@contextmanager
def _disk(target: Path, store: CheckpointStore) -> Iterator[None]:
    with writing(
        "체크포인트를 저장하지 못했습니다", target, store.remedy("디스크의 남은 공간과 쓰기 권한을 확인한 뒤")
    ):
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out torch's warnings and logs of how it writes, which mean nothing to a user."""
    logger = logging.getLogger("torch.distributed.checkpoint")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
