"""What several processes share: some commands and standard input. Other commands would do everything several times."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from exceptions import SettingsError
from finetuning.commands.console import input_lines
from finetuning.korean.particles import with_particle

if TYPE_CHECKING:
    from finetuning.device.runtime import Runtime

_SHARED = ("train", "evaluate", "predict", "generate")
_ALONE = ("--seeds", "--live")  # flags with which these are not shared either


def check_shared(arguments: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> None:
    """Raise SettingsError where a launcher started several processes for a command that they do not share."""
    if environment.get("WORLD_SIZE", "1") == "1":
        return
    flags = [flag for flag in _ALONE if getattr(arguments, flag.removeprefix("--"))]
    if arguments.command not in _SHARED or flags:
        command = " ".join([arguments.command, *flags])
        raise SettingsError(
            f"{with_particle(command, '은/는')} 프로세스 하나로만 실행합니다.",
            where="torchrun, accelerate launch",
            remedy="python으로 실행하세요.",
        )


def lines_for_all(runtime: Runtime) -> Iterator[str]:
    """Yield the lines of standard input, which the main process reads: a launcher leaves one input to all."""
    yield from runtime.on_main(lambda: list(input_lines()))
