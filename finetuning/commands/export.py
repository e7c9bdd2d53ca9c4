"""export: write a fine-tuned model in a format that other programs load."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

from exceptions import SettingsError
from finetuning.checkpoints.names import CHECKPOINTS, entries
from finetuning.commands.run_folder import EXPORTED, MODEL_FILES, RECORD
from finetuning.commands.session import Session, find_saved
from finetuning.commands.what_next import exported_model, tell
from finetuning.exports.registry import DEFAULT
from finetuning.files import seen_from, write_json
from finetuning.reporting.next_steps import next_commands

_log = logging.getLogger(__name__)
_WRITTEN = {
    *MODEL_FILES, "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "chat_template.jinja", "vocab.json", "vocab.txt", "merges.txt", "spiece.model",
    "settings.yaml", RECORD, CHECKPOINTS,
}  # fmt: skip
_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt")


def run(session: Session, arguments: argparse.Namespace) -> None:
    """Write the model in output_dir or --model_name to --output, or to a folder inside that of the model by default."""
    find_saved(session, arguments)
    model = Path(session.models.name)
    home = model if model.is_dir() else session.output_dir  # a model of the Hub has no folder
    folder = arguments.output.expanduser() if arguments.output else home / DEFAULT.name
    check_export_folder(folder, model)
    DEFAULT.write(session.models, folder)
    write_json(folder / EXPORTED, {"format": DEFAULT.name, "model": _from(folder, model)})
    _log.info("%s: %s", DEFAULT.done, folder)
    tell(next_commands(exported_model(session, folder, home / "settings.yaml"), done={"evaluate"}))


def check_export_folder(folder: Path, model: Path) -> None:
    """Check that an export writes over nothing but an earlier export of the same model.

    Args:
        folder: The folder to write to.
        model: The folder of the model, or its id on the Hub.

    Raises:
        SettingsError: The path is a file, or the folder holds another model.
    """
    if folder.exists() and not folder.is_dir():
        raise SettingsError(
            "--output이 파일입니다. export는 폴더에 저장합니다.",
            where=f"--output: {folder}",
            remedy="--output으로 새로 만들 폴더를 지정하세요.",
        )
    theirs = sorted(name for name in entries(folder) if name in _WRITTEN or name.endswith(_WEIGHTS))
    if not theirs or _exported_from(folder) == _from(folder, model):
        return
    more = f" 외 {len(theirs) - 3}개" if len(theirs) > 3 else ""
    is_own = model.is_dir() and folder.samefile(model)
    own = " 합치기 전의 어댑터가 있는 폴더입니다." if is_own else ""
    raise SettingsError(
        f"--output 폴더에 다른 모델이 있어 덮어쓰지 않습니다: {', '.join(theirs[:3])}{more}.{own}",
        where=f"--output: {folder}",
        remedy="비어 있거나 새로 만들 폴더를 지정하세요. 이 폴더의 내용이 더 필요하지 않으면 지운 뒤 다시 실행하세요.",
    )


def _from(folder: Path, model: Path) -> str:
    """Return the model as it is seen from the export, so that both may be moved together."""
    return seen_from(folder.resolve(), model.resolve()) if model.is_dir() else str(model)


def _exported_from(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / EXPORTED).read_text(encoding="utf-8"))["model"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
