"""The folder of a run: check that it can be written, clear it, and find the checkpoint to resume from."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from exceptions import ResourceError, SettingsError
from finetuning.checkpoints.names import CHECKPOINTS, half_made_in
from finetuning.commands.command_line import resume_command
from finetuning.commands.nearby_runs import nothing_to_resume
from finetuning.commands.run_folder import MODEL_FILES, RunFolder, is_ours
from finetuning.files import discard, discard_leftovers, disk_reason
from finetuning.reporting.page.names import FILES

if TYPE_CHECKING:
    from finetuning.checkpoints.store import CheckpointStore

# What a run writes over or removes; `tensorboard` and other trackers add files of their own names.
_WRITTEN = (
    *MODEL_FILES, "adapter_model.safetensors", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "chat_template.jinja", "README.md", "settings.yaml", "summary.json", "metrics.jsonl", "samples.json",
    "trace.json", "vocabulary.json", "best.json", "trackers.json", "modules.json", "long_documents.json",
    "config_sentence_transformers.json", "sentence_bert_config.json", *FILES,
)  # fmt: skip


def checkpoint_to_resume(
    store: CheckpointStore, run: RunFolder, resumes: bool, words: Sequence[str], newest: Callable[[], Path | None]
) -> Path | None:
    """Find the checkpoint to resume from.

    Args:
        store: The checkpoints of the run.
        run: The folder of the run, with the checkpoint that was named.
        resumes: Whether the command line asks to resume.
        words: The words of the command line.
        newest: Finds the newest checkpoint that is whole.

    Returns:
        The folder of the checkpoint, or None for a new run.

    Raises:
        ModelError: The run is resumed, and there is no checkpoint.
        SettingsError: A new run would overwrite one that is not finished.
    """
    if resumes:
        path = run.checkpoint or newest()
        if path is None:
            raise nothing_to_resume(run.path, str(run.path / CHECKPOINTS), words)
        return path
    if store.folders():
        raise SettingsError(
            "끝나지 않은 학습이 이 폴더에 있습니다. 덮어쓰지 않습니다.",
            where=str(run.path / CHECKPOINTS),
            remedy="새로 하려면 --output_dir를 바꾸거나 checkpoints 폴더를 지우세요. "
            f"이어서 하려면: {resume_command(words)}",
        )
    return None


def check_writable(output_dir: Path) -> None:
    """Raise ResourceError if output_dir cannot be created or written, before any slow work."""
    if output_dir.is_symlink() and not output_dir.exists():
        raise ResourceError(
            "output_dir가 가리키는 곳이 없는 링크입니다.",
            where=f"model.output_dir: {output_dir} → {output_dir.readlink()}",
            remedy="링크를 다시 만들거나 --output_dir로 다른 폴더를 고르세요.",
        )
    nearest = next(path for path in (output_dir, *output_dir.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise ResourceError(
            f"폴더가 있어야 할 곳에 파일이 있습니다: {nearest}",
            where=f"model.output_dir: {output_dir}",
            remedy="그 파일을 옮기거나 --output_dir로 다른 폴더를 고르세요.",
        )
    if not os.access(nearest, os.W_OK):
        raise ResourceError(
            "output_dir에 쓸 수 없습니다.",
            where=f"model.output_dir: {output_dir}",
            remedy=f"{nearest} 폴더에 쓰기 권한이 있는지 확인하거나 --output_dir로 다른 폴더를 고르세요.",
        )


def prepare_output(run: RunFolder, starts_anew: bool) -> None:
    """Make the folder and clear what a killed run left in it, for a new run its records too; record which run it is."""
    try:
        (run.path / CHECKPOINTS).mkdir(parents=True, exist_ok=True)  # now, not at the first save hours later
        if starts_anew:
            for name in ("metrics.jsonl", "samples.json", "trace.json", "best.json", "trackers.json"):
                (run.path / name).unlink(missing_ok=True)
            for folder in half_made_in(run.path / CHECKPOINTS):
                discard(folder)
            run.record()
        discard_leftovers(half_made_in(run.path / CHECKPOINTS))  # a resumed run may have nothing more to save
    except OSError as error:
        raise ResourceError(
            f"output_dir에 쓸 수 없습니다: {disk_reason(error)}",
            where=str(error.filename or run.path),
            remedy="쓰기 권한과 디스크의 남은 공간을 확인하거나, --output_dir로 다른 폴더를 고르세요.",
        ) from error


def check_not_foreign(output_dir: Path) -> None:
    """Raise SettingsError where a run would overwrite files that another program or a person made."""
    theirs = [name for name in _WRITTEN if (output_dir / name).exists()]
    if theirs and not is_ours(output_dir):
        raise SettingsError(
            f"이 프로그램이 만들지 않은 파일이 있어 덮어쓰지 않습니다: {', '.join(theirs)}",
            where=f"model.output_dir: {output_dir}",
            remedy="--output_dir로 비어 있거나 새로 만들 폴더를 지정하세요.",
        )


def is_evaluation(path: Path) -> bool:
    """Return whether `evaluate` wrote a `metrics-*.json`; the user may have files of such names."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return bool(path.name == f"metrics-{found['split']}.json" and "rows" in found)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
