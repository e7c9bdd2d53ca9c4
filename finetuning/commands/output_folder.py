"""The folder of a run: check that it can be written, clear it, and find the checkpoint to resume from."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from exceptions import ModelError, ResourceError, SettingsError

if TYPE_CHECKING:
    from finetuning.checkpoints.store import CheckpointStore

_WRITTEN = ("config.json", "model.safetensors", "adapter_config.json", "README.md")


def checkpoint_to_resume(store: CheckpointStore, arguments: argparse.Namespace, output_dir: Path) -> Path | None:
    """Find the checkpoint to resume from.

    Args:
        store: The checkpoints of output_dir.
        arguments: The command line.
        output_dir: The folder of the run.

    Returns:
        The folder of the checkpoint, or None for a new run.

    Raises:
        ModelError: The command line asks to resume, and there is no checkpoint.
        SettingsError: A new run would overwrite one that is not finished.
    """
    if arguments.resume or arguments.checkpoint_path is not None:
        path = arguments.checkpoint_path or store.newest()
        if path is None:
            raise ModelError(
                "이어서 학습할 체크포인트가 없습니다.",
                where=str(output_dir / "checkpoints"),
                remedy="--output_dir가 그 학습의 폴더인지 확인하거나, --resume 없이 처음부터 학습하세요.",
            )
        return path
    if not (output_dir / "summary.json").exists() and store.newest() is not None:
        raise SettingsError(
            "끝나지 않은 학습이 이 폴더에 있습니다. 덮어쓰지 않습니다.",
            where=str(output_dir / "checkpoints"),
            remedy="이어서 하려면 --resume을 붙이고, 새로 하려면 --output_dir를 바꾸거나 checkpoints 폴더를 지우세요.",
        )
    return None


def check_writable(output_dir: Path) -> None:
    """Raise ResourceError if output_dir cannot be created or written, before any slow work."""
    nearest = next(path for path in (output_dir, *output_dir.absolute().parents) if path.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise ResourceError(
            "output_dir에 쓸 수 없습니다.",
            where=f"model.output_dir: {output_dir}",
            remedy=f"{nearest} 경로가 폴더인지, 쓰기 권한이 있는지 확인하거나 --output_dir로 다른 폴더를 고르세요.",
        )


def prepare_output(output_dir: Path, starts_anew: bool) -> None:
    """Make output_dir; for a new run, clear the records and checkpoints of the finished run before."""
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        if starts_anew:
            for name in ("summary.json", "metrics.jsonl", "trace.json"):
                (output_dir / name).unlink(missing_ok=True)
            for folder in (output_dir / "checkpoints").glob("*step-*"):
                shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise ResourceError(
            f"output_dir에 쓸 수 없습니다: {error.strerror or error}",
            where=str(output_dir),
            remedy="쓰기 권한과 디스크의 남은 공간을 확인하거나, --output_dir로 다른 폴더를 고르세요.",
        ) from error


def check_not_foreign(output_dir: Path) -> None:
    """Raise SettingsError where a run would overwrite files that another program or a person made."""
    ours = [output_dir / "settings.yaml", *(output_dir / "checkpoints").glob("step-*/manifest.json")]
    theirs = [name for name in _WRITTEN if (output_dir / name).exists()]
    if theirs and not any(path.exists() for path in ours):
        raise SettingsError(
            f"이 프로그램이 만들지 않은 파일이 있어 덮어쓰지 않습니다: {', '.join(theirs)}",
            where=f"model.output_dir: {output_dir}",
            remedy="--output_dir로 비어 있거나 새로 만들 폴더를 지정하세요.",
        )
