"""The flag --adapters of export: several adapters as one model, whose tokenizer and settings are those of the first."""

from __future__ import annotations

import argparse

from exceptions import SettingsError


def add_adapters_flag(parser: argparse.ArgumentParser) -> None:
    """Add the flag to the parser of the command line."""
    parser.add_argument(
        "--adapters", nargs="+", metavar="폴더=가중치",
        help="export: 베이스 모델이 같은 LoRA 어댑터들을 가중치를 곱해 더합니다. 예: a=0.7 b=0.3 (--output과 함께. "
        "tokenizer와 설정은 첫 어댑터의 것)",
    )  # fmt: skip


def name_first_adapter(arguments: argparse.Namespace) -> None:
    """Read the shares of --adapters, and make the first the model of the command.

    Args:
        arguments: The command line, changed in place.

    Raises:
        SettingsError: Another model is named as well, or no folder to write to.
    """
    if not arguments.adapters:
        return
    from finetuning.models.mixed import Share

    if arguments.model_name is not None or arguments.output is None:
        raise SettingsError(
            "--adapters에는 저장할 폴더(--output)를 함께 쓰고, --model_name은 쓰지 않습니다.",
            where="명령줄",
            remedy="예: export --adapters ./models/a=0.7 ./models/b=0.3 --output ./models/sum",
        )
    arguments.adapters = [Share.of(text) for text in arguments.adapters]
    arguments.model_name = arguments.adapters[0].folder
