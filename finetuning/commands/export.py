"""export: write a fine-tuned model in a format that other programs load, and send it to the Hub where asked to."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path

from exceptions import SettingsError
from finetuning.checkpoints.names import CHECKPOINTS, entries
from finetuning.commands.run_folder import MODEL_FILES, RECORD
from finetuning.commands.session import Session, find_saved
from finetuning.commands.what_next import exported_model, tell
from finetuning.exports.base import ExportFormat, Written
from finetuning.exports.described import card, origin_of, origin_of_sum, public_settings
from finetuning.exports.folder import record_of, size_text, sizes_in, staged
from finetuning.exports.hub import check_may_push, check_name, push, shown_push
from finetuning.exports.registry import find_format
from finetuning.files import seen_from, typed
from finetuning.models.mixed import check_shares
from finetuning.reporting.next_steps import NextStep, lines_of, next_commands

_log = logging.getLogger(__name__)
_CARD, _SETTINGS = "README.md", "settings.yaml"
_WRITTEN = {
    *MODEL_FILES, "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "chat_template.jinja", "vocab.json", "vocab.txt", "merges.txt", "spiece.model",
    _SETTINGS, RECORD, CHECKPOINTS,
}  # fmt: skip
_BESIDE = {_CARD, "Modelfile"}
_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".onnx")


def run(session: Session, arguments: argparse.Namespace) -> None:
    """Write the model in output_dir or --model_name to --output, or to a folder inside that of the model by default."""
    chosen = find_format(arguments.format)
    if arguments.push is not None:
        (check_name if arguments.dry_run else check_may_push)(arguments.push)
    find_saved(session, arguments)
    if arguments.adapters:
        check_shares(arguments.adapters)
        session.models.shares = arguments.adapters
    model = Path(session.models.name)
    home = model if model.is_dir() else session.output_dir  # a model of the Hub has no folder
    folder = arguments.output.expanduser() if arguments.output else home / chosen.name
    check_export_folder(folder, model)
    earlier = record_of(folder)
    written = _write(session, chosen, folder, home, arguments.license)
    sizes = sizes_in(folder)
    if arguments.adapters:
        parts = ", ".join(f"{share.folder} × {share.weight:g}" for share in arguments.adapters)
        _log.info("어댑터 %d개를 가중치를 곱해 더했습니다: %s", len(arguments.adapters), parts)
    _tell_what_was_written(chosen, folder, sizes, written)
    if earlier:
        _log.info("이 폴더에 이전에 내보낸 파일(%s 형식)은 이번에 만든 파일로 바꾸었습니다.", earlier.get("format"))
    if arguments.push is not None and arguments.dry_run:
        text = (folder / _CARD).read_text(encoding="utf-8")
        _log.info("\n".join(shown_push(arguments.push, sizes, text)))
    elif arguments.push is not None:
        _log.info("Hub에 올렸습니다(비공개 저장소): %s", push(arguments.push, folder, sizes))
    tell(next_commands(exported_model(session, folder), done={"evaluate"}) if chosen.loads_here else ())


def _write(session: Session, chosen: ExportFormat, folder: Path, home: Path, license: str | None) -> Written:
    """Write the model with its settings and its card, all of it or nothing."""
    shares = session.models.shares
    origin = origin_of_sum([Path(share.folder) for share in shares], license) if shares else origin_of(home, license)
    parts = {"adapters": {_from(folder, Path(share.folder)): share.weight for share in shares}} if shares else {}
    model = _from(folder, Path(session.models.name))
    record = {"format": chosen.name, "task": session.task.name, "model": model, **parts}
    with staged(folder, record) as place:
        written = chosen.write(session.models, place)
        settings = public_settings(session.settings, session.task, origin)
        (place / _SETTINGS).write_text(settings.to_yaml(), encoding="utf-8")
        sizes = {path.name: path.stat().st_size for path in sorted(place.iterdir()) if path.is_file()}
        text = card(_name_of(folder, home, chosen), session.task, origin, written.usage, sizes)
        (place / _CARD).write_text(text, encoding="utf-8")
    return written


def _name_of(folder: Path, home: Path, chosen: ExportFormat) -> str:
    """Return the model's name: that of its run's folder, where the export has only the name of its format."""
    named = folder.resolve().name
    return home.resolve().name if named == chosen.name else named


def _tell_what_was_written(
    chosen: ExportFormat, folder: Path, sizes: Mapping[str, int], written: Written
) -> None:  # fmt: skip
    shown = ", ".join(f"{name} {size_text(size)}" for name, size in list(sizes.items())[:3])
    more = f" 외 {len(sizes) - 3}개" if len(sizes) > 3 else ""
    _log.info("%s: %s (%s. %s%s)", chosen.done, folder, size_text(sum(sizes.values())), shown, more)
    for line in written.found:
        _log.info(line)
    steps = [
        NextStep("serve", what, typed(*(word.replace("{folder}", str(folder)) for word in words)))
        for what, words in written.commands
    ]
    if steps:
        _log.info("\n".join(lines_of(steps, "다른 프로그램에서 쓰기")))


def check_export_folder(folder: Path, model: Path) -> None:
    """Check that an export writes over nothing but an earlier export of the same model.

    Args:
        folder: The folder to write to.
        model: The folder of the model, or its id on the Hub.

    Raises:
        SettingsError: The path is a file, or the folder holds another model or files of the names that are written.
    """
    if folder.exists() and not folder.is_dir():
        raise SettingsError(
            "--output이 파일입니다. export는 폴더에 저장합니다.",
            where=f"--output: {folder}",
            remedy="--output으로 새로 만들 폴더를 지정하세요.",
        )
    names = entries(folder)
    theirs = sorted(name for name in names if name in _WRITTEN or name.endswith(_WEIGHTS))
    theirs = theirs or sorted(name for name in names if name in _BESIDE)
    if not theirs or record_of(folder).get("model") == _from(folder, model):
        return
    more = f" 외 {len(theirs) - 3}개" if len(theirs) > 3 else ""
    is_own = model.is_dir() and folder.samefile(model)
    own = " 합치기 전의 어댑터가 있는 폴더입니다." if is_own else ""
    what = "같은 이름의 파일이" if theirs[0] in _BESIDE else "다른 모델이"
    raise SettingsError(
        f"--output 폴더에 {what} 있어 덮어쓰지 않습니다: {', '.join(theirs[:3])}{more}.{own}",
        where=f"--output: {folder}",
        remedy="비어 있거나 새로 만들 폴더를 지정하세요. 이 폴더의 내용이 더 필요하지 않으면 지운 뒤 다시 실행하세요.",
    )


def _from(folder: Path, model: Path) -> str:
    """Return the model as it is seen from the export, so that both may be moved together."""
    return seen_from(folder.resolve(), model.resolve()) if model.is_dir() else str(model)
