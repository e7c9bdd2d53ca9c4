"""The chat template that a run began with, in its folder: it is the model's, whatever becomes of the user's file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from exceptions import ModelError
from finetuning.files import write_atomically

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NAME = "chat_template.jinja"  # transformers' name, under which it is saved with the model too


def keep_template(tokenizer: PreTrainedTokenizerBase, output_dir: Path) -> None:
    """Write the tokenizer's chat template into the folder of a run, for when it is resumed before a model is saved."""
    if isinstance(tokenizer.chat_template, str):
        write_atomically(output_dir / _NAME, tokenizer.chat_template)


def kept_template(*output_dirs: Path) -> str | None:
    """Return the chat template that a run began with.

    Args:
        *output_dirs: Folders of the run. The first that has a template counts.

    Returns:
        The template; None if no folder has one, as in a run of a model without.

    Raises:
        ModelError: It cannot be read.
    """
    path = next((folder / _NAME for folder in output_dirs if (folder / _NAME).is_file()), None)
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(
            "학습을 시작할 때 저장한 chat template을 읽을 수 없습니다.",
            where=str(path),
            remedy="학습을 시작한 template의 Jinja 파일을 이 경로에 UTF-8로 복사하세요.",
        ) from error
