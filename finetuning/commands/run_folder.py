"""Which folder a run has: output_dir, or the numbered one beside it. Nothing here needs torch.

A finished run is never overwritten: the next run with the same output_dir gets `<output_dir>-2`, then `-3`. `run.json`
in each folder says which output_dir was asked for and which number the run has, so that a folder which only looks like
a numbered one is never taken for it. Every command works with the newest run of an output_dir.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exceptions import ModelError, SettingsError
from finetuning.checkpoints.names import (
    CHECKPOINTS,
    checkpoints_in,
    entries,
    follow,
    half_made_in,
    step_of,
    with_own_name,
)
from finetuning.commands.nearby_runs import nothing_to_resume
from finetuning.device.peers import is_elastic, is_on_main_machine, is_restarted
from finetuning.files import write_json
from finetuning.korean.particles import with_particle

RECORD = "run.json"
ENDED = "ended"  # in the last checkpoint of a run, on disks without its result
MODEL_FILES = ("config.json", "model.safetensors", "model.safetensors.index.json", "adapter_config.json")
_NUMBERED = re.compile(r".+-[1-9]\d*")


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run.

    Attributes:
        path: The folder.
        name: Name of the output_dir that was asked for when the run began.
        number: 1 for output_dir itself, 2 for `<output_dir>-2`.
        note: Korean log line for the start of the run; None if the folder is the one that was named.
        earlier: The finished run that stays as it is; None where there is none.
        checkpoint: The checkpoint that was named; None for the newest one.
        refined: What was asked for, and what it became, of each setting that the data refined, by dotted name.
    """

    path: Path
    name: str
    number: int = 1
    note: str | None = None
    earlier: Path | None = None
    checkpoint: Path | None = None
    refined: Mapping[str, Any] = field(default_factory=dict)

    def record(self) -> None:
        """Write which run this is into its folder."""
        refined = {"refined": self.refined} if self.refined else {}
        write_json(self.path / RECORD, {"output_dir": self.name, "number": self.number, **refined})


def newest_run(output_dir: Path) -> RunFolder:
    """Return the run of an output_dir with the largest number; output_dir itself where no run is numbered."""
    return max(_runs(output_dir), key=lambda run: run.number)


def folder_to_train(output_dir: Path, arguments: argparse.Namespace, is_given: bool) -> RunFolder:
    """Choose the folder that `train` writes to.

    Args:
        output_dir: `model.output_dir`.
        arguments: The command line: `resume`, `checkpoint_path` and its `words`.
        is_given: Whether the command line gave output_dir.

    Returns:
        The newest run, to continue it; a new folder if that one is finished; or the run that contains the
        checkpoint.

    Raises:
        ModelError: There is no such checkpoint.
        SettingsError: The checkpoint is not of this output_dir.
    """
    if arguments.checkpoint_path is not None:
        try:
            return _folder_of_checkpoint(output_dir, arguments.checkpoint_path, is_given, arguments.words)
        except (ModelError, SettingsError):
            if is_on_main_machine():
                raise
            return RunFolder(output_dir, output_dir.name)  # another disk, maybe; what the main process finds counts
    newest = newest_run(output_dir)
    # a group that may be started again goes on with what it had saved
    arguments.resume = arguments.resume or (is_elastic() and is_unfinished(newest.path))
    if arguments.resume:
        note = f"가장 최근 학습을 이어 갑니다: {newest.path}" if newest.number > 1 else None
        return RunFolder(newest.path, newest.name, newest.number, note)
    if not is_ours(newest.path) or is_unfinished(newest.path) or not _has_result(newest.path):
        return newest
    return _next(output_dir, newest)


def is_ours(folder: Path) -> bool:
    """Return whether a run of this program made the folder."""
    checkpoints = checkpoints_in(folder / CHECKPOINTS)
    if _exists(folder / RECORD) or half_made_in(folder / CHECKPOINTS):
        return True
    if any(_exists(path / "manifest.json") for path in checkpoints):
        return True
    return _exists(folder / "settings.yaml") and any(_exists(folder / name) for name in MODEL_FILES)


def is_unfinished(folder: Path) -> bool:
    """Return whether a run stopped in the folder before its end, with a checkpoint to continue from."""
    return (
        not _exists(folder / "summary.json") and bool(checkpoints_in(folder / CHECKPOINTS)) and not _is_marked(folder)
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a folder that cannot be looked into: `check_writable` names it
        return False


def _is_folder(path: Path) -> bool:
    return _exists(path) and path.is_dir()


def _has_result(folder: Path) -> bool:
    return any(_exists(folder / name) for name in ("summary.json", *MODEL_FILES)) or _is_marked(folder)


def _is_marked(folder: Path) -> bool:
    """Return whether a run has ended here whose result lies on another machine's disk."""
    return any(_exists(newest / ENDED) for newest in checkpoints_in(folder / CHECKPOINTS)[-1:])


def _runs(output_dir: Path) -> Iterator[RunFolder]:
    """Yield output_dir and the runs beside it that were numbered because of it."""
    named = with_own_name(output_dir)
    yield RunFolder(output_dir, named.name)
    for name in entries(named.parent):
        record = _recorded(named.with_name(name)) if _NUMBERED.fullmatch(name) else None
        if record is not None and _folded(name) == _folded(f"{record[0]}-{record[1]}") and _is_of(named, record[0]):
            yield RunFolder(named.with_name(name), record[0], record[1])


def _is_of(named: Path, recorded: str) -> bool:
    """Return whether a recorded output_dir is this one, maybe in the other case or in single letters of Hangul."""
    if recorded == named.name:
        return True
    return _folded(recorded) == _folded(named.name) and _is_one(named.parent / recorded, named)


def _folded(name: str) -> str:
    """Return a name as a disk compares it that takes `model` and `Model` for one, or gives Hangul back in NFD."""
    return unicodedata.normalize("NFC", name).casefold()


def _is_one(path: Path, other: Path) -> bool:
    """Return whether two paths are one folder that exists, whatever their names."""
    return _exists(path) and _exists(other) and path.samefile(other)


def _recorded(folder: Path) -> tuple[str, int] | None:
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return str(record["output_dir"]), int(record["number"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _next(output_dir: Path, newest: RunFolder) -> RunFolder:
    """Return the next numbered folder that is free."""
    named, number = with_own_name(output_dir), newest.number + 1
    while _is_taken(named.with_name(f"{named.name}-{number}")):
        number += 1
    path = named.with_name(f"{named.name}-{number}")
    note = f"이전 학습의 결과가 {newest.path} 폴더에 있습니다. 그대로 두고 새 폴더에 학습합니다: {path}"
    return RunFolder(path, named.name, number, note, newest.path)


def _is_taken(path: Path) -> bool:
    """Return whether there is anything but an empty folder, or one that a run has only locked so far."""
    return bool(set(entries(path)) - {".lock"}) or (os.path.lexists(path) and not _is_folder(path))


def _folder_of_checkpoint(output_dir: Path, given: Path, is_given: bool, words: Sequence[str]) -> RunFolder:
    given = given.expanduser()
    if is_restarted() and not _exists(given) and checkpoints_in(given.parent):
        given = given.parent  # a group that is started again has dropped the one that it began from
    if given.name == CHECKPOINTS and checkpoints_in(given):
        given = given.parent
    if _is_folder(given / CHECKPOINTS) and not _exists(given / "manifest.json"):
        checkpoint, run = None, given.resolve()  # a run's own folder stands for its newest checkpoint
    else:
        if not _may_be_checkpoint(given):
            raise nothing_to_resume(given, f"--checkpoint_path: {given}", words)
        checkpoint = follow(given)
        run = checkpoint.parent.parent
        if checkpoint.parent.name != CHECKPOINTS:
            return _for_a_copy(output_dir, checkpoint, is_given)
    if is_given:
        same = next((member for member in _runs(output_dir) if _is_one(member.path, run)), None)
        if same is None:
            raise SettingsError(
                f"체크포인트는 {_shown(run)} 폴더의 학습인데, --output_dir는 {output_dir}입니다.",
                where=f"--checkpoint_path: {given}",
                remedy=f"그 학습을 이어 가려면 --output_dir를 빼세요. {with_particle(str(output_dir), '을/를')} 이어 "
                "가려면 --checkpoint_path를 빼고 --resume만 쓰세요.",
            )
        run = same.path
    path = _shown(run)
    note = f"체크포인트가 들어 있는 학습 폴더에서 이어 갑니다: {path}"
    return RunFolder(path, path.name or run.name, note=note, checkpoint=checkpoint)


def _may_be_checkpoint(path: Path) -> bool:
    """Return whether a path is a checkpoint, by its files or its name, or a pointer file to one."""
    is_named = _exists(path) and step_of(path.resolve()) is not None
    return is_named or _exists(path / "manifest.json") or (_exists(path) and not path.is_dir())


def _for_a_copy(output_dir: Path, checkpoint: Path, is_given: bool) -> RunFolder:
    """Return the folder to continue in from a checkpoint that was copied out of its run's folder."""
    if not is_given:
        raise SettingsError(
            "체크포인트가 학습 폴더의 checkpoints 안에 있지 않아 어느 학습인지 알 수 없습니다.",
            where=f"--checkpoint_path: {checkpoint}",
            remedy="--output_dir로 이어서 학습할 새 폴더를 지정하세요.",
        )
    newest = newest_run(output_dir)
    is_taken = _has_result(newest.path) or bool(checkpoints_in(newest.path / CHECKPOINTS))
    if is_taken and not is_restarted():  # what a group that is started again finds there is its own
        raise SettingsError(
            "이 체크포인트는 --output_dir의 학습에 들어 있지 않고, --output_dir에는 이미 학습이 있습니다.",
            where=f"--checkpoint_path: {checkpoint}, --output_dir: {newest.path}",
            remedy="--output_dir로 비어 있거나 새로 만들 폴더를 지정하세요. 이 폴더의 학습에서 복사해 둔 것이라면 "
            f"{newest.path / CHECKPOINTS} 안에 옮기고 그 경로를 쓰세요.",
        )
    return RunFolder(newest.path, newest.name, newest.number, checkpoint=checkpoint)


def _shown(path: Path) -> Path:
    """Return a path below the current folder relative to it, as a user writes it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) and path != here else path


def check_not_its_own_base(model_name: str, output_dir: Path) -> None:
    """Raise SettingsError where a run would write into the folder of the very model that it begins with."""
    base = Path(model_name).expanduser()
    if base.is_dir() and _is_one(base, output_dir):
        beside = with_own_name(output_dir)
        raise SettingsError(
            "--model_name과 --output_dir가 같은 폴더입니다. 바탕이 되는 모델을 덮어쓰지 않습니다.",
            where=f"model.name: {model_name}, model.output_dir: {output_dir}",
            remedy=f"결과를 저장할 다른 폴더를 지정하세요: --model_name {model_name} "
            f"--output_dir {beside.with_name(beside.name + '-tuned')}",
        )
