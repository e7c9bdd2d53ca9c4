"""Checkpoints on several disks: each has the files that its processes wrote, and together they are whole.

What a process cannot read itself is sent to it by the process that keeps it, so that it does not matter how many there
are now, or which of them sees which disk.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.distributed.checkpoint._hf_utils import CUSTOM_METADATA_KEY, SAVED_OFFSETS_KEY

from exceptions import ModelError
from finetuning.checkpoints.manifest import (
    STATE,
    TENSORS,
    Present,
    file_broken,
    present_in,
    read_state,
    save_in,
    with_tensors,
    without_tensors,
)
from finetuning.checkpoints.names import step_of
from finetuning.checkpoints.store import CheckpointStore
from finetuning.checkpoints.together import check_like, named
from finetuning.device.runtime import Runtime
from finetuning.device.sharding import own_part, own_region
from finetuning.files import move
from finetuning.models.streamed import DTYPES
from finetuning.types import Checkpoint

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Piece:
    """A part of a tensor in a file.

    Attributes:
        file: The file.
        name: The tensor.
        offset: Where the part begins in the whole tensor.
        shape: Its shape.
        dtype: safetensors' name of its dtype.
        reader: The process that reads it for those that do not see its disk.
    """

    file: str
    name: str
    offset: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: str
    reader: int


@dataclass(frozen=True)
class Scattered:
    """A checkpoint that is whole over all disks, each file as it was written.

    Attributes:
        folder: Its path on each disk.
        readers: The process that reads each file.
    """

    folder: Path
    readers: Mapping[str, int]


def newest_of_all(store: CheckpointStore, runtime: Runtime) -> Scattered | None:
    """Return the newest checkpoint that is whole over all disks. Every process has to call it.

    Args:
        store: The checkpoints of the run.
        runtime: The group of processes.

    Returns:
        The checkpoint; None where no disk has any.

    Raises:
        ModelError: There are parts of checkpoints, and the disks that are here make none of them whole.
    """
    keeps = store.disks.keeper == runtime.process
    names = set(runtime.gathered([one.name for one in store.folders()] if keeps else []))
    broken = list[ModelError]()
    for name in sorted(names, key=lambda name: step_of(Path(name)) or 0, reverse=True):
        _finish(store.folder / name, store, runtime)
        try:
            found = scattered_in(store.folder / name, store, runtime)
        except ModelError as error:
            broken.append(error)
            continue
        for one in broken:
            _log.warning("%s 이전 체크포인트를 찾습니다. (%s)", one.what, one.where)
        return found
    if broken:
        raise ModelError(
            f"온전한 체크포인트가 없어 이어서 학습할 수 없습니다. {broken[0].what}",
            where=broken[0].where,
            remedy="빠진 부분을 가진 노드가 다시 켜지면 --resume으로 이어서 학습하세요. 되찾을 수 없으면 모든 노드에서 "
            f"{store.folder} 폴더를 지우거나 --output_dir를 바꾸어 처음부터 학습하세요.",
        )
    return None


def _finish(folder: Path, store: CheckpointStore, runtime: Runtime) -> None:
    """Give a checkpoint its name on the disks where a kill came before: all were written when the first one got it."""
    keeps = store.disks.keeper == runtime.process
    named = set(runtime.gathered([save for save in [save_in(folder)] if keeps and save is not None]))
    if keeps and not folder.exists():
        for made in store.unnamed_of(folder):
            if save_in(made) in named:
                with suppress(OSError):  # then it is not whole, and an earlier one counts
                    move(made, folder)
    runtime.together(lambda: None)


def load_from_all(found: Scattered, runtime: Runtime) -> Checkpoint:
    """Load a checkpoint from several disks. Every process has to call it.

    Args:
        found: The checkpoint.
        runtime: The group of processes.

    Returns:
        The checkpoint; tensors that several processes wrote are read by `read_from_all`.
    """
    folder, readers = found.folder, found.readers
    state = runtime.from_process(readers[STATE], lambda: read_state(folder))
    if TENSORS[0] not in readers:
        return replace(without_tensors(state, folder), readers=readers)
    model, optimizer = (_sent(folder / name, readers[name], runtime) for name in TENSORS)
    return with_tensors(state, model, optimizer)


def read_from_all(
    found: Scattered, model: Mapping[str, torch.Tensor], optimizer: Mapping[str, torch.Tensor],
    store: CheckpointStore, runtime: Runtime,
) -> None:  # fmt: skip
    """Read this process's part of a checkpoint on several disks into tensors, in place; see `read_shards`."""
    into, folder, readers = named(model, optimizer), found.folder, found.readers
    mine = [name for name, reader in readers.items() if reader == runtime.process and name != STATE]
    pieces = sorted(
        runtime.gathered([piece for name in mine for piece in _pieces_in(folder / name, runtime.process)]),
        key=lambda piece: (piece.file, piece.name, piece.offset),
    )
    saved = dict[str, tuple[int, ...]]()
    for piece in pieces:
        ends = tuple(start + length for start, length in zip(piece.offset, piece.shape, strict=True))
        saved[piece.name] = tuple(map(max, ends, saved.get(piece.name, ends)))
    check_like(saved, into, folder)
    needed = {piece for piece in pieces if _overlap(piece, into[piece.name]) is not None}
    to_send = set(runtime.gathered([piece for piece in needed if piece.reader != store.disks.keeper]))
    with ExitStack() as stack:
        files = dict[str, safe_open]()
        for piece in pieces:
            tensor = None
            sends = piece.reader == runtime.process and piece in to_send
            if sends or (piece.reader == store.disks.keeper and piece in needed):
                if piece.file not in files:
                    files[piece.file] = stack.enter_context(safe_open(folder / piece.file, framework="pt"))
                tensor = files[piece.file].get_tensor(piece.name)
            if piece in to_send:
                tensor = runtime.spread(tensor, piece.shape, DTYPES[piece.dtype], piece.reader)
            if tensor is not None:
                _copy(piece, tensor, into[piece.name])


def scattered_in(folder: Path, store: CheckpointStore, runtime: Runtime) -> Scattered:
    """Look which disks have which files of a checkpoint. Every process has to call it.

    Args:
        folder: The checkpoint, under the same path on each disk.
        store: The checkpoints of the run.
        runtime: The group of processes.

    Returns:
        The checkpoint, whole over all disks.

    Raises:
        ModelError: A file is on no disk as it was written; the message names the machine that wrote it.
    """
    keeps = store.disks.keeper == runtime.process
    found: list[Present | ModelError | None] = runtime.by_process(_looked(folder) if keeps else None)
    failed = next((one for one in found if isinstance(one, ModelError)), None)
    parts = [(rank, one) for rank, one in enumerate(found) if isinstance(one, Present)]
    for save in dict.fromkeys(part.save for _, part in parts):  # a step may have been saved twice
        of_one = [(rank, part) for rank, part in parts if part.save == save]
        readers = {name: rank for rank, part in reversed(of_one) for name in part.files if name not in part.broken}
        first = of_one[0][1]
        missing = [name for name in first.files if name not in readers]
        if not missing:
            return Scattered(folder, readers)
        failed = file_broken(folder, first, missing[0])
    assert failed is not None  # the keeper of the main process's disk has found something or nothing
    raise failed


def _looked(folder: Path) -> Present | ModelError:
    try:
        return present_in(folder)
    except ModelError as error:
        return error


def _sent(path: Path, reader: int, runtime: Runtime) -> dict[str, torch.Tensor]:
    """Return the tensors of a file that one process reads."""
    own = load_file(path) if reader == runtime.process else {}
    facts = runtime.from_process(reader, lambda: {name: (tuple(one.shape), one.dtype) for name, one in own.items()})
    return {name: runtime.spread(own.get(name), *fact, reader) for name, fact in facts.items()}


def _pieces_in(path: Path, reader: int) -> Iterator[Piece]:
    with safe_open(path, framework="pt") as file:
        offsets = json.loads(file.metadata()[CUSTOM_METADATA_KEY])
        for name in file.keys():  # noqa: SIM118
            part = file.get_slice(name)
            offset = tuple(offsets[name][SAVED_OFFSETS_KEY])
            yield Piece(path.name, name, offset, tuple(part.get_shape()), part.get_dtype(), reader)


def _overlap(piece: Piece, into: torch.Tensor) -> tuple[tuple[slice, ...], tuple[slice, ...]] | None:
    """Return where a piece and this process's part of a tensor meet, in each of both; None where they do not."""
    shape, begin = own_region(into)
    first = [max(a, b) for a, b in zip(piece.offset, begin, strict=True)]
    ends: Sequence[tuple[int, int]] = [
        (a + n, b + m) for a, n, b, m in zip(piece.offset, piece.shape, begin, shape, strict=True)
    ]
    last = [min(pair) for pair in ends]
    if math.prod(shape) == 0 or any(end <= start for start, end in zip(first, last, strict=True)):
        return None
    return (
        tuple(slice(start - a, end - a) for start, end, a in zip(first, last, piece.offset, strict=True)),
        tuple(slice(start - b, end - b) for start, end, b in zip(first, last, begin, strict=True)),
    )


@torch.no_grad()
def _copy(piece: Piece, tensor: torch.Tensor, into: torch.Tensor) -> None:
    met = _overlap(piece, into)
    if met is not None:
        own_part(into)[met[1]].copy_(tensor[met[0]])
