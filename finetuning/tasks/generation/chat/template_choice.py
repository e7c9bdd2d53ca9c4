"""Which chat template a tokenizer gets: the user's file, its own, or a plain one."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from exceptions import SettingsError
from finetuning.config.schema import TextGenerationSettings
from finetuning.tasks.generation.chat.template import plain_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger(__name__)


def set_template(tokenizer: PreTrainedTokenizerBase, settings: TextGenerationSettings) -> None:
    """Give a tokenizer the template of the user's file or, if it has none of its own, the plain one.

    Args:
        tokenizer: Tokenizer to change.
        settings: `chat_template` names the file; a model of plain text (`format: text`) needs no template.

    Raises:
        SettingsError: The file cannot be read.
    """
    if settings.chat_template is not None:
        tokenizer.chat_template = _read(settings.chat_template)
    elif tokenizer.chat_template is None and settings.format != "text":
        tokenizer.chat_template = plain_template(tokenizer)


def keep_trained_template(tokenizer: PreTrainedTokenizerBase, settings: TextGenerationSettings) -> None:
    """Leave a trained model the template that it was trained with; warn where the user's file has another one.

    Args:
        tokenizer: Tokenizer that was saved with the model.
        settings: As for `set_template`. The file counts only for a tokenizer without a template.

    Raises:
        SettingsError: The tokenizer has no template, and the file cannot be read.
    """
    path = settings.chat_template
    if tokenizer.chat_template is None or path is None:
        set_template(tokenizer, settings)
        return
    try:
        is_same = Path(path).read_text(encoding="utf-8-sig") == tokenizer.chat_template
    except (OSError, UnicodeDecodeError):
        is_same = False  # the file is not needed any more
    if not is_same:
        _log.warning(
            "학습을 시작할 때 저장한 chat template을 씁니다. text_generation.chat_template의 파일은 그것과 다르거나 "
            "읽을 수 없어 쓰지 않습니다: %s. 새 template으로 학습하려면 "
            "--resume 없이 다른 --output_dir에서 학습하세요.",
            path,
        )


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(
            "chat template 파일이 UTF-8이 아닙니다. CP949(EUC-KR)로 저장한 파일로 보입니다.",
            where=f"text_generation.chat_template: {path}",
            remedy="편집기에서 UTF-8로 다시 저장하세요. 터미널에서는 "
            f"`iconv -f cp949 -t utf-8 {path} > template.jinja`로 바꿀 수 있습니다.",
        ) from error
    except OSError as error:
        raise SettingsError(
            f"chat template 파일을 읽을 수 없습니다: {error.strerror or error}",
            where=f"text_generation.chat_template: {path}",
            remedy="Jinja 파일의 경로를 확인하세요.",
        ) from error
