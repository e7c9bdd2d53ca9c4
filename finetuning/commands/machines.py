"""Training on machines that share no folder: what others are given of the run's folder, which the first one has."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from exceptions import SettingsError
from finetuning.commands.command_line import resume_command
from finetuning.commands.output_folder import checkpoint_to_resume
from finetuning.commands.run_folder import ENDED, is_unfinished
from finetuning.device.peers import is_elastic
from finetuning.files import discard, missing_folders, remove_empty, writing

if TYPE_CHECKING:
    import torch

    from finetuning.checkpoints.store import CheckpointStore
    from finetuning.commands.session import Session
    from finetuning.device.disks import Disks
    from finetuning.device.runtime import Runtime
    from finetuning.types import Checkpoint

_log = logging.getLogger(__name__)
_COPY = ".model.copied"
_TEMPLATES = "additional_chat_templates"  # of a tokenizer that has several
_READ = frozenset({".json", ".safetensors", ".jinja", ".txt", ".model", ".yaml"})  # by what loads a model
_PART_BYTES = 2**26


def tell_of_disks(disks: Disks, session: Session) -> None:
    """Log in one line that machines do not see the main process's folder, and what is saved where."""
    if disks.is_one:
        return
    where = "노드마다 자기가 나누어 가진 부분을" if session.settings.distributed.shard != "none" else "이 노드에만"
    _log.warning(
        "노드들이 output_dir를 공유하지 않습니다: %s. 모델과 기록은 %s의 %s에 저장하고, 체크포인트는 %s 저장합니다.",
        ", ".join(disks.names), disks.names[0], session.output_dir, where,
    )  # fmt: skip


def found_checkpoint(
    store: CheckpointStore, arguments: argparse.Namespace, runtime: Runtime
) -> tuple[Path | None, Checkpoint | None]:
    """Find and load the checkpoint to continue from. Every process has to call it.

    Args:
        store: The checkpoints of the run.
        arguments: The command line; `resume` is set where the launcher goes on with a run that no one asked to resume.
        runtime: The group of processes.

    Returns:
        The checkpoint's folder, and the checkpoint; None, None for a new run.
    """
    from finetuning.checkpoints.store import read

    if store.disks.is_one:
        path = runtime.on_main(lambda: _whole(store, arguments))  # its files are hashed once, and not by every process
        return path, None if path is None else read(path)
    from finetuning.checkpoints.scattered import load_from_all, newest_of_all, scattered_in

    # a machine that comes first after a new start may not be the one that was first before
    unfinished = runtime.by_process(is_unfinished(store.folder.parent))
    arguments.resume = arguments.resume or (is_elastic() and any(unfinished))
    resumes = arguments.resume or arguments.checkpoint_path is not None
    if not resumes and not unfinished[0]:
        _check_not_elsewhere(store, unfinished, arguments.words)
    newest = newest_of_all(store, runtime) if resumes and arguments.run.checkpoint is None else None

    def find() -> Path | None:
        path = checkpoint_to_resume(
            store, arguments.run, resumes, arguments.words, lambda: None if newest is None else newest.folder
        )
        is_ours = path is not None and path.parent == store.folder.resolve()
        return store.folder / path.name if path is not None and is_ours else path  # as each machine finds it

    path = runtime.on_main(find)
    if path is None:
        return None, None
    found = newest if newest is not None and newest.folder == path else scattered_in(path, store, runtime)
    return path, load_from_all(found, runtime)


def _check_not_elsewhere(store: CheckpointStore, unfinished: Sequence[bool], words: Sequence[str]) -> None:
    """Raise SettingsError where a new run would drop what another machine has of one that is not finished."""
    disks = store.disks
    names = [name for name, keeper in zip(disks.names, disks.keepers, strict=True) if unfinished[keeper]]
    if names:
        raise SettingsError(
            "끝나지 않은 학습의 체크포인트가 다른 노드에 있습니다. 덮어쓰지 않습니다.",
            where=f"{', '.join(names)}의 {store.folder}",
            remedy="새로 하려면 --output_dir를 바꾸거나 그 노드의 checkpoints 폴더를 지우세요. "
            f"이어서 하려면: {resume_command(words)}",
        )


def _whole(store: CheckpointStore, arguments: argparse.Namespace) -> Path | None:
    """Return the checkpoint to resume from, verified, or None for a new run."""
    resumes = arguments.resume or arguments.checkpoint_path is not None
    path = checkpoint_to_resume(store, arguments.run, resumes, arguments.words, store.newest)
    if path is None or arguments.run.checkpoint is None:  # the newest was verified when it was looked for
        return path
    return store.verified(path)


def clear_copies(folder: Path, disks: Disks, runtime: Runtime) -> None:
    """Remove the copies of the model that a killed run has left on other disks."""
    copy = folder / _COPY
    if disks.keeper == runtime.process and not runtime.is_main and copy.is_dir():
        discard(copy)
        remove_empty([folder])


def mark_end(store: CheckpointStore, runtime: Runtime) -> None:
    """Leave on other disks that the run has ended, which summary.json says on the first one's."""
    newest = store.folders()[-1:]
    if store.disks.keeper == runtime.process and not runtime.is_main and newest:
        with suppress(OSError):  # without it the next start looks for a checkpoint and finds this one
            (newest[0] / ENDED).touch()


@contextmanager
def model_for_all(folder: Path, disks: Disks, runtime: Runtime) -> Iterator[Path]:
    """Give a folder from which this process loads the model that the main process saved.

    Other disks get a copy of its files, which is removed behind the block. Every process has to call it.

    Args:
        folder: The folder of the run.
        disks: The disks behind it.
        runtime: The group of processes.

    Yields:
        The folder itself, or that of the copy.
    """
    if disks.is_one:
        yield folder
        return
    copy, keeps, made = folder / _COPY, disks.keeper == runtime.process, missing_folders(folder)
    try:
        for name in runtime.from_main(_model_files(folder) if runtime.is_main else []):
            _hand_over(folder / name, copy / name, keeps and not runtime.is_main, runtime)
        yield folder if disks.own == 0 else copy
        runtime.together(lambda: None)  # others of this machine may still read
    finally:
        if keeps and not runtime.is_main:
            discard(copy)
            remove_empty(made)


def _model_files(folder: Path) -> list[str]:
    """Return the files that a model is loaded from, by their path below the folder: other folders may be exports."""
    found = (path for part in (folder, *_folders_of_model(folder)) for path in part.iterdir() if path.is_file())
    return sorted(
        path.relative_to(folder).as_posix() for path in found
        if path.suffix in _READ and not path.name.startswith(".")
    )  # fmt: skip


def _folders_of_model(folder: Path) -> list[Path]:
    """Return the folders in which a model has files: of its modules, as `1_Pooling`, and of further templates."""
    try:
        modules = [str(module["path"]) for module in json.loads((folder / "modules.json").read_text(encoding="utf-8"))]
    except (OSError, ValueError, KeyError, TypeError):  # most models have none
        modules = []
    names = {Path(name).name for name in (*modules, _TEMPLATES)} - {""}
    return sorted(folder / name for name in names if (folder / name).is_dir())


def _hand_over(source: Path, target: Path, writes: bool, runtime: Runtime) -> None:
    """Copy a file of the main process's disk to other disks, part by part."""
    import numpy as np
    import torch

    size = runtime.from_main(source.stat().st_size if runtime.is_main else 0)

    def begin() -> None:
        if writes:
            with writing("모델을 복사하지 못했습니다", target):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)

    runtime.together(begin)
    for start in range(0, size, _PART_BYTES):
        length, part = min(_PART_BYTES, size - start), None
        if runtime.is_main:
            part = torch.from_numpy(np.fromfile(source, np.uint8, length, offset=start))
        received = runtime.spread(part, (length,), torch.uint8, 0)

        def add(received: torch.Tensor = received) -> None:
            if writes:
                with writing("모델을 복사하지 못했습니다", target), target.open("ab") as file:
                    file.write(received.numpy().tobytes())

        runtime.together(add)
