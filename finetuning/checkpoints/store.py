"""Checkpoints on disk: written whole or not at all, verified when loaded, rotated only after the new one is whole."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from exceptions import ModelError, ResourceError
from finetuning.checkpoints.names import (
    CHECKPOINTS,
    LATEST,
    checkpoints_in,
    folder_name,
    follow,
    half_made_in,
    points_to_a_checkpoint,
    step_of,
    with_own_name,
)
from finetuning.checkpoints.tensors import size_in_bytes, without_aliases
from finetuning.files import (
    discard,
    discard_leftovers,
    disk_reason,
    give_usual_mode,
    move,
    on_windows,
    seen_from,
    sync_file,
    sync_folder,
    writing,
)
from finetuning.types import Checkpoint, Progress

_log = logging.getLogger(__name__)
_FORMAT = 3  # 3: the fingerprint has one entry per setting, and its hashes of rows are made anew
_TENSORS, _STATE = ("model.safetensors", "optimizer.safetensors"), "state.json"
_SHARD = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")  # torch's names
_ALIASES = "tensor_aliases"


class CheckpointStore:
    """The checkpoints of one output_dir, and the link `checkpoint-latest` next to it.

    Args:
        output_dir: The folder of the run.
        keep: How many checkpoints stay on disk.
    """

    def __init__(self, output_dir: Path, keep: int) -> None:
        self.folder, self.keep = output_dir / CHECKPOINTS, keep
        self.latest = with_own_name(output_dir).absolute().parent / LATEST  # beside a link, not beside its target
        self._has_warned_of_latest = False

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint in a hidden folder, publish it with one rename, then drop the oldest ones.

        Checkpoints of the same and of later steps, which a run that went back leaves behind, give way to it.

        Args:
            checkpoint: What to save.

        Returns:
            The folder of the checkpoint.

        Raises:
            ResourceError: The disk is full or cannot be written. Earlier checkpoints are untouched.
        """
        target = self.path_of(checkpoint.progress.step)
        partial = self.partial_of(target)
        remedy = self.remedy("디스크의 남은 공간과 쓰기 권한을 확인한 뒤")
        with writing("체크포인트를 저장하지 못했습니다", target, remedy, partial):
            self.begin(partial, checkpoint)
            write_files(partial, checkpoint)
            self.publish(partial, target)
        return target

    def partial_of(self, target: Path) -> Path:
        """Return the hidden folder in which this process makes a checkpoint."""
        return self.folder / f".{target.name}.partial-{os.getpid()}"

    def begin(self, partial: Path, checkpoint: Checkpoint) -> None:
        """Remove folders of checkpoints that were cut off, and make that of a new one if the disk has room for it."""
        self._make_folder()
        discard_leftovers(half_made_in(self.folder))
        discard_leftovers(self.latest.parent.glob(f".{self.latest.name}.partial-*"))
        self._check_space(checkpoint)
        partial.mkdir()

    def publish(self, partial: Path, target: Path) -> None:
        """Give a checkpoint that is whole its name, make it the latest, and drop those that gave way to it."""
        _publish(partial, target, self.later_than((step_of(target) or 0) - 1))
        sync_folder(self.folder)
        self._try_to_point_latest_to(target)
        self._rotate()

    def remedy(self, after: str) -> str:
        """Return how to continue once `after`, a Korean clause, is done; --resume is named if there is a checkpoint."""
        if self.folders():
            return f"{after} --resume으로 이어서 학습하세요. 이전 체크포인트는 그대로 있습니다."
        return f"{after} 처음부터 다시 학습하세요. 저장된 체크포인트는 아직 없습니다."

    def path_of(self, step: int) -> Path:
        """Return the folder of a step's checkpoint, whether or not there is one."""
        return self.folder / folder_name(step)

    def folders(self) -> list[Path]:
        """Return the folders of all checkpoints, oldest first."""
        return checkpoints_in(self.folder)

    def later_than(self, step: int) -> list[Path]:
        """Return the checkpoints of later steps. The next save drops them: they belong to an abandoned branch."""
        return [path for path in self.folders() if (step_of(path) or 0) > step]

    def newest(self) -> Path | None:
        """Return the newest whole checkpoint; broken ones are logged and skipped."""
        for folder in reversed(self.folders()):
            try:
                _verify(folder)
            except ModelError as error:
                _log.warning("%s 이전 체크포인트를 찾습니다. (%s)", error.what, error.where)
                continue
            return folder
        return None

    def load(self, path: Path) -> Checkpoint:
        """Verify and read a checkpoint.

        Args:
            path: The checkpoint's folder, or a link or pointer file to it.

        Returns:
            The checkpoint, its tensors in main memory.

        Raises:
            ModelError: There is no checkpoint, or a file of it is missing or damaged.
        """
        folder = follow(path)
        _verify(folder)
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        rest = (state["state"], Progress(**state["progress"]), state["fingerprint"])
        if not (folder / "model.safetensors").is_file():
            return Checkpoint({}, {}, *rest, shards=folder)
        model = load_file(folder / "model.safetensors")
        for alias, name in state.pop(_ALIASES).items():
            model[alias] = model[name]
        return Checkpoint(model, load_file(folder / "optimizer.safetensors"), *rest)

    def _make_folder(self) -> None:
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            sync_folder(self.folder.parent)

    def _check_space(self, checkpoint: Checkpoint) -> None:
        needed = int(1.05 * size_in_bytes(checkpoint)) + 2**20
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise ResourceError(
                "디스크 공간이 부족해 체크포인트를 저장하지 않았습니다. "
                f"필요 {needed / 2**20:,.0f} MiB, 남음 {free / 2**20:,.0f} MiB",
                where=str(self.folder),
                remedy=self.remedy("공간을 비우거나 training.save_total_limit를 줄인 뒤"),
            )

    def _rotate(self) -> None:
        for old in self.folders()[: -self.keep]:
            with suppress(OSError):  # Windows: a program has a file of it open; the next save tries again
                _drop(old)

    def _try_to_point_latest_to(self, target: Path) -> None:
        """Update checkpoint-latest; warn once where that fails, since the checkpoint itself is saved."""
        try:
            self._point_latest_to(target)
        except (OSError, ValueError) as error:  # ValueError: a name that UTF-8 cannot write
            if not self._has_warned_of_latest:
                _log.warning(
                    "%s 링크를 만들지 못했습니다: %s --resume은 그대로 쓸 수 있습니다.",
                    self.latest,
                    disk_reason(error) or error,
                )
            self._has_warned_of_latest = True

    def _point_latest_to(self, target: Path) -> None:
        """Replace checkpoint-latest with one rename: a link, or a file that holds the path where links fail."""
        if os.path.lexists(self.latest) and not points_to_a_checkpoint(self.latest):
            if not self._has_warned_of_latest:
                _log.warning(
                    "이 프로그램의 것이 아닌 %s 경로가 이미 있어 최신 체크포인트의 링크를 만들지 않습니다.", self.latest
                )
            self._has_warned_of_latest = True
            return
        relative = seen_from(self.latest.parent, target)
        partial = self.latest.with_name(f".{self.latest.name}.partial-{os.getpid()}")
        partial.unlink(missing_ok=True)
        try:
            _point(partial, relative)
            move(partial, self.latest)
            sync_folder(self.latest.parent)
        finally:
            discard(partial)


def write_files(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the files of one checkpoint and a manifest with their sizes and hashes, all flushed to the disk.

    Args:
        folder: An empty folder.
        checkpoint: What to write.

    Raises:
        OSError: The disk cannot be written.
    """
    model, aliases = without_aliases(checkpoint.model)
    save_file(model, folder / "model.safetensors")
    save_file(
        {name: tensor.contiguous() for name, tensor in checkpoint.optimizer.items()}, folder / "optimizer.safetensors"
    )
    give_usual_mode(folder.glob("*.safetensors"))
    write_state(folder, checkpoint, aliases, facts_of(folder, _TENSORS))


def write_state(
    folder: Path, checkpoint: Checkpoint, aliases: Mapping[str, str], facts: Mapping[str, dict[str, Any]]
) -> None:
    """Write what a checkpoint holds besides tensors, and the manifest of all its files.

    Args:
        folder: The folder, in which the tensors are already.
        checkpoint: What to write.
        aliases: Names of tensors that share another's memory, and that tensor's name.
        facts: Result of `facts_of` for the files of tensors.

    Raises:
        OSError: The disk cannot be written.
    """
    state = {
        "progress": asdict(checkpoint.progress),
        "fingerprint": checkpoint.fingerprint,
        "state": checkpoint.state,
        _ALIASES: dict(aliases),
    }
    (folder / _STATE).write_text(json.dumps(state, ensure_ascii=False), encoding="utf-8")
    files = {**facts, **facts_of(folder, [_STATE])}
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps({"format": _FORMAT, "files": files}, indent=2), encoding="utf-8")
    sync_file(manifest)
    sync_folder(folder)


def facts_of(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Flush files to the disk and return size and hash of each, for the manifest; those that are not there are not."""
    facts = {}
    for path in (folder / name for name in names):
        if path.is_file():
            sync_file(path)
            facts[path.name] = {"bytes": path.stat().st_size, "sha256": _hash(path)}
    return facts


def shards_in(folder: Path, process: int) -> list[Path]:
    """Return the files that a process has written into a checkpoint of several, which torch names."""
    return sorted(folder.glob(f"shard-{process + 1:05d}-model-*.safetensors"))


def _verify(folder: Path) -> None:
    """Raise ModelError where a file of a checkpoint is missing or differs from what was written."""
    remedy = "더 이전 체크포인트를 쓰려면 --checkpoint_path 없이 --resume만 쓰세요."
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        version, facts = manifest["format"], manifest["files"]
        shards = [name for name in facts if _SHARD.fullmatch(name)]
        expected = {name: (facts[name]["bytes"], facts[name]["sha256"]) for name in (_STATE, *(shards or _TENSORS))}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ModelError("체크포인트의 manifest.json이 없거나 깨졌습니다.", where=str(folder), remedy=remedy) from None
    if version != _FORMAT:
        raise ModelError(
            f"체크포인트의 형식({version})이 이 버전의 형식({_FORMAT})과 달라 이어서 학습할 수 없습니다.",
            where=str(folder),
            remedy="체크포인트를 만든 버전으로 이어서 학습하세요. 지금까지 학습한 모델에서 시작하려면 새 학습의 "
            "--model_name에 이 output_dir를 쓰세요.",
        )
    for name, (size, digest) in expected.items():
        path = folder / name
        if not path.is_file():
            raise ModelError(f"체크포인트에 {name} 파일이 없습니다.", where=str(folder), remedy=remedy)
        if path.stat().st_size != size or _hash(path) != digest:
            raise ModelError(f"체크포인트의 {name} 파일이 깨졌습니다.", where=str(folder), remedy=remedy)


def _point(path: Path, target: str) -> None:
    """Make a link; or a file that holds the path, on FAT, and on Windows, whose links to folders cannot be replaced."""
    if not on_windows():
        with suppress(OSError):
            path.symlink_to(target, target_is_directory=True)
            return
    path.write_text(target + "\n", encoding="utf-8")


def _publish(partial: Path, target: Path, abandoned: Sequence[Path]) -> None:
    """Rename `partial` to `target` after moving aside what gives way to it, so that it is the newest at once.

    Args:
        partial: The folder of a whole checkpoint.
        target: Its name.
        abandoned: Checkpoints that are moved aside, the newest first, then removed; they come back if the rename fails.
    """
    moved: list[tuple[Path, Path]] = []
    try:
        for path in reversed(abandoned):
            moved.append((path, _aside(path)))
            move(*moved[-1])
        move(partial, target)
    except OSError:
        for path, aside in moved:
            with suppress(OSError):
                move(aside, path)
        raise
    for _, aside in moved:
        shutil.rmtree(aside, ignore_errors=True)


def _drop(folder: Path) -> None:
    """Remove a checkpoint. It loses its name first, so that no part of it can be taken for a checkpoint."""
    aside = _aside(folder)
    move(folder, aside)
    shutil.rmtree(aside, ignore_errors=True)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.replaced-{os.getpid()}")


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
