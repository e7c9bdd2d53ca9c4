"""Runs near a folder that has none to go on with: inside it, and beside it. Nothing here needs torch."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path

from exceptions import ModelError
from finetuning.checkpoints.names import CHECKPOINTS, checkpoints_in, entries, step_of
from finetuning.files import command_of_this_program

_SHOWN, _MOST_LOOKED_AT = 5, 1000
_PLACES = ("--output_dir", "--checkpoint_path")  # flags whose value names a run; --resume is added anew


def nothing_to_resume(folder: Path, where: str, words: Sequence[str]) -> ModelError:
    """Return the error for a folder without a checkpoint; it names the runs nearby or here, and the command for each.

    Args:
        folder: The folder that was looked into. It need not exist.
        where: The folder as the error names it.
        words: The words of the command line.

    Returns:
        The error to raise.
    """
    runs = runs_near(folder) or runs_near(Path.cwd())
    if not runs:
        remedy = "--output_dir가 그 학습의 폴더인지 확인하거나, --resume 없이 처음부터 학습하세요."
    else:
        more = f" 외 {len(runs) - _SHOWN}개" if len(runs) > _SHOWN else ""
        shown = "".join(f"\n  - {_command(run, words)} ({_state(run)})" for run in runs[:_SHOWN])
        remedy = f"이어서 학습할 수 있는 폴더가 가까이에 있습니다{more}. 그 학습이라면 이렇게 실행하세요:{shown}"
    return ModelError("이어서 학습할 체크포인트가 없습니다.", where=where, remedy=remedy)


def runs_near(folder: Path) -> list[Path]:
    """Return the folders of runs with a checkpoint, the likeliest first.

    Args:
        folder: Where none is. Runs are looked for inside it, two folders deep, and beside it.

    Returns:
        Folders inside before folders beside it, those before that have not ended, and those before of a like name.
    """
    inside = [run for child in _inside(folder) for run in (child, *_inside(child)) if _has_checkpoint(run)]
    beside = [run for run in _inside(folder.absolute().parent) if _has_checkpoint(run)]
    found = {run.resolve(): run for run in (*reversed(beside), *reversed(inside))}
    found.pop(folder.resolve(), None)

    def order(run: Path) -> tuple[bool, bool, float, str]:
        likeness = difflib.SequenceMatcher(None, folder.name, run.name).ratio()
        return run in beside, _has_ended(run), -likeness, run.name

    return sorted(found.values(), key=order)


def _inside(folder: Path) -> Iterator[Path]:
    for name in sorted(entries(folder))[:_MOST_LOOKED_AT]:
        if not name.startswith("."):
            yield folder / name


def _has_checkpoint(folder: Path) -> bool:
    return bool(checkpoints_in(folder / CHECKPOINTS))


def _has_ended(run: Path) -> bool:
    return "summary.json" in entries(run)


def _state(run: Path) -> str:
    step = step_of(checkpoints_in(run / CHECKPOINTS)[-1]) or 0
    return f"스텝 {step:,}까지, {'끝난 학습' if _has_ended(run) else '멈춘 학습'}"


def _command(run: Path, words: Sequence[str]) -> str:
    """Return the command line with this run in place of the one that was named."""
    kept, following = list[str](), iter(words)
    for word in following:
        value = next(following, "") if word in (*_PLACES, "--set") else ""
        if word == "--set" and not value.startswith("model.output_dir"):
            kept += [word, value]
        elif word in (*_PLACES, "--set"):
            continue
        elif word != "--resume" and not word.startswith(tuple(f"{flag}=" for flag in _PLACES)):
            kept.append(word)
    here = Path.cwd()
    shown = run.relative_to(here) if run.is_relative_to(here) else run
    return command_of_this_program(*kept, "--resume", "--checkpoint_path", shown)
