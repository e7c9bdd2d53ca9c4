"""Checkpoints on disk: written whole or not at all, verified when loaded, rotated only after the new one is whole."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from safetensors.torch import load_file, save_file

from exceptions import ModelError, ResourceError
from finetuning.checkpoints.manifest import (
    TENSORS,
    facts_of,
    file_broken,
    present_in,
    read_state,
    state_text,
    with_tensors,
    without_tensors,
    write_state,
)
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
from finetuning.device.disks import ONE_DISK, Disks
from finetuning.files import (
    discard,
    discard_leftovers,
    disk_reason,
    give_usual_mode,
    move,
    on_windows,
    seen_from,
    sync_folder,
    write_json,
    writing,
)
from finetuning.types import Checkpoint

_log = logging.getLogger(__name__)
_BEFORE = ".before.json"  # which checkpoint was the newest when a run began from a named one


class CheckpointStore:
    """The checkpoints of one output_dir, and the link `checkpoint-latest` next to it.

    Args:
        output_dir: The folder of the run.
        keep: How many checkpoints stay on disk.
        disks: The disks behind the path of the folder, where the processes see several.
    """

    def __init__(self, output_dir: Path, keep: int, disks: Disks = ONE_DISK) -> None:
        self.folder, self.keep, self.disks = output_dir / CHECKPOINTS, keep, disks
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
            self.settle(target)
        return target

    def partial_of(self, target: Path) -> Path:
        """Return the hidden folder in which this process makes a checkpoint."""
        return self.folder / f".{target.name}.partial-{os.getpid()}"

    def unnamed_of(self, target: Path) -> list[Path]:
        """Return the hidden folders in which processes have made a checkpoint that did not get its name."""
        return sorted(self.folder.glob(f".{target.name}.partial-*"))

    def begin(self, partial: Path, checkpoint: Checkpoint, share: float = 1.0) -> None:
        """Remove folders of checkpoints that were cut off, and make that of a new one if the disk has room for it.

        Args:
            partial: The folder to make.
            checkpoint: What is to be written.
            share: The share of its tensors that comes to this disk.

        Raises:
            ResourceError: The disk is too full.
            OSError: The disk cannot be written.
        """
        self._make_folder()
        discard_leftovers(half_made_in(self.folder))
        discard_leftovers(self.latest.parent.glob(f".{self.latest.name}.partial-*"))
        self._check_space(checkpoint, share)
        discard(partial)  # of another machine's process with this number
        partial.mkdir()

    def publish(self, partial: Path, target: Path) -> None:
        """Give a checkpoint that is whole its name, and drop those of the same and of later steps."""
        _publish(partial, target, self.later_than((step_of(target) or 0) - 1))
        sync_folder(self.folder)

    def settle(self, target: Path) -> None:
        """Make a checkpoint the latest, and drop the oldest ones."""
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

    def remember_newest(self) -> None:
        """Write down which checkpoint is the newest, as a run begins from one that was named; see `has_gone_on`."""
        with writing("체크포인트 폴더에 쓰지 못했습니다", self.folder):
            self._make_folder()
            write_json(self.folder / _BEFORE, self._last_written())

    def has_gone_on(self) -> bool:
        """Return whether a checkpoint was saved since the run began from the one that was named."""
        try:
            return bool(json.loads((self.folder / _BEFORE).read_text(encoding="utf-8")) != self._last_written())
        except (OSError, ValueError, RecursionError):
            return True

    def _last_written(self) -> list[str | int]:
        """Return the name of the newest checkpoint, and when it was written; nothing where there is none."""
        return [fact for path in self.folders()[-1:] for fact in (path.name, path.stat().st_mtime_ns)]

    def load(self, path: Path) -> Checkpoint:
        """Verify and read a checkpoint.

        Args:
            path: The checkpoint's folder, or a link or pointer file to it.

        Returns:
            The checkpoint, its tensors in main memory.

        Raises:
            ModelError: There is no checkpoint, or a file of it is missing or damaged.
        """
        return read(self.verified(path))

    def verified(self, path: Path) -> Path:
        """Return a checkpoint's folder once its files are known to be as they were written; raises as `load` does."""
        folder = follow(path)
        _verify(folder)
        return folder

    def _make_folder(self) -> None:
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            sync_folder(self.folder.parent)

    def _check_space(self, checkpoint: Checkpoint, share: float) -> None:
        needed = int(1.05 * share * size_in_bytes(checkpoint)) + 2**20
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


def read(folder: Path) -> Checkpoint:
    """Read a checkpoint that is known to be whole."""
    if not (folder / TENSORS[0]).is_file():
        return without_tensors(read_state(folder), folder)
    return with_tensors(read_state(folder), *(load_file(folder / name) for name in TENSORS))


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
    write_state(folder, state_text(checkpoint, aliases), facts_of(folder, TENSORS))


def _verify(folder: Path) -> None:
    """Raise ModelError where a file of a checkpoint is missing or differs from what was written."""
    present = present_in(folder)
    for name in present.broken:
        raise file_broken(folder, present, name)


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
