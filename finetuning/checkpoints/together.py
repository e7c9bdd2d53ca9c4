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

from exceptions import ModelError
from finetuning.checkpoints.background import BackgroundSaver, copied_if_it_fits
from finetuning.checkpoints.manifest import facts_of, shards_in, state_text, write_state
from finetuning.checkpoints.store import CheckpointStore
from finetuning.checkpoints.tensors import size_here
from finetuning.device.runtime import Runtime
from finetuning.files import discard, give_usual_mode, writing
from finetuning.types import Checkpoint

if TYPE_CHECKING:
    import torch

_FILE_BYTES = 2**26  # of a process
_MODEL, _OPTIMIZER = "model/", "optimizer/"


class TogetherSaver(BackgroundSaver):
    """Saves with all processes. Every process has to call `save`, and to leave the `with` block.

    Where every process has memory for a copy of its part, a thread of each writes the copy while training goes on. The
    threads exchange what they need in a group of their own.

    Args:
        store: Where checkpoints are written.
        runtime: The group of processes.
    """

    def __init__(self, store: CheckpointStore, runtime: Runtime) -> None:
        super().__init__(store)
        self.runtime = runtime.with_own_group()

    def _copied(self, checkpoint: Checkpoint) -> Checkpoint | None:
        copy = copied_if_it_fits(checkpoint, size_here(checkpoint), self.runtime.processes_here)
        return None if self.runtime.maximum(float(copy is None)) else copy

    def _saved(self, checkpoint: Checkpoint) -> Path:
        store, runtime, target = self.store, self.runtime, self.store.path_of(checkpoint.progress.step)
        disks, is_keeper = store.disks, store.disks.keeper == runtime.process
        partial = runtime.from_main(store.partial_of(target))
        state = runtime.from_main(state_text(checkpoint, {}))
        share = runtime.by_process(disks.own).count(disks.own) / runtime.processes

        def together(work: Callable[[], None], do: bool) -> None:
            runtime.together(lambda: self._on_disk(work, target) if do else None)

        try:
            together(lambda: store.begin(partial, checkpoint, share), is_keeper)
            together(lambda: write_shards(partial, checkpoint, runtime), True)
            names = [path.name for path in shards_in(partial, runtime.process)]
            facts = dict(runtime.gathered(runtime.together(lambda: list(facts_of(partial, names).items()))))
            writers = dict(runtime.gathered([(name, disks.names[disks.own]) for name in names]))
            nodes = {} if disks.is_one else writers
            together(lambda: write_state(partial, state, facts, nodes), is_keeper)
            # the main process last: what it has under its name is whole on all disks
            together(lambda: store.publish(partial, target), is_keeper and not runtime.is_main)
            together(lambda: store.publish(partial, target), runtime.is_main)
            together(lambda: store.settle(target), is_keeper)
        except BaseException:
            if is_keeper:
                discard(partial)
            raise
        return target

    def _on_disk(self, work: Callable[[], None], target: Path) -> None:
        remedy = self.store.remedy("디스크의 남은 공간과 쓰기 권한을 확인한 뒤")
        with writing("체크포인트를 저장하지 못했습니다", target, remedy):
            work()


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

    into = named(model, optimizer)
    reader = HuggingFaceStorageReader(str(folder))
    metadata = reader.read_metadata().state_dict_metadata
    check_like({name: tuple(one.size) for name, one in metadata.items()}, into, folder)  # type: ignore[union-attr]
    with _quiet():
        dcp.load(into, storage_reader=reader, no_dist=not torch_is_grouped())


def check_like(saved: Mapping[str, tuple[int, ...]], into: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Raise ModelError where the tensors of a checkpoint are not those of this model and optimizer.

    Args:
        saved: Shapes by name.
        into: Tensors by name.
        folder: The checkpoint.
    """
    different = sorted(
        name for name in {*saved, *into} if name not in into or saved.get(name) != tuple(into[name].shape)
    )
    if different:
        raise ModelError(
            f"체크포인트의 가중치가 이 모델의 것이 아닙니다: {', '.join(different[:3])} 등 {len(different):,}개",
            where=str(folder),
            remedy="처음 학습할 때의 모델과 어댑터, 옵티마이저 설정으로 이어서 학습하세요.",
        )


def torch_is_grouped() -> bool:
    """Return whether this process belongs to a group."""
    import torch.distributed as dist

    return dist.is_initialized()


def write_shards(partial: Path, checkpoint: Checkpoint, runtime: Runtime) -> None:
    """Write the shards of all processes, each to the folder as it sees it."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageWriter

    tensors = named(checkpoint.model, checkpoint.optimizer)
    files = _files_of(tensors, runtime.processes)
    writer = HuggingFaceStorageWriter(str(partial), fqn_to_index_mapping=files, save_distributed=True)
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


def named(model: Mapping[str, torch.Tensor], optimizer: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return the tensors of a checkpoint under the names that they have in its files."""
    return {
        **{f"{_MODEL}{name}": tensor for name, tensor in model.items()},
        **{f"{_OPTIMIZER}{name}": tensor for name, tensor in optimizer.items()},
    }


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
