"""board: the whole job on a page of this machine. What the page does is done by the other commands."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from exceptions import SettingsError
from finetuning.commands.board_flags import DEFAULT_PORT, THIS_MACHINE
from finetuning.config.schema import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from finetuning.web.server import Place
    from finetuning.web.work import Work

_NEEDED = ("gradio", "fastapi", "uvicorn")


def run(arguments: argparse.Namespace, settings: Settings) -> None:
    """Serve the page until Ctrl+C; runs that train then go on.

    Args:
        arguments: The command line: `folder`, `output_dir`, `port`, `host` and `folders`.
        settings: The settings in force; the runs lie beside `model.output_dir` where no folder is named.

    Raises:
        SettingsError: Gradio is not installed, or the address cannot be listened on.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise SettingsError(
            f"페이지를 여는 데 필요한 패키지가 없습니다: {', '.join(missing)}",
            where="board",
            remedy="make board로 설치하고 열거나, pip install gradio -c requirements-lock.txt로 설치하세요.",
        )
    runs = arguments.folder or Path(arguments.output_dir or Path(settings.model.output_dir).parent).expanduser()
    host = arguments.host or THIS_MACHINE
    with tempfile.TemporaryDirectory(prefix="board-uploads-") as uploads:
        os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_TEMP_DIR=uploads, HF_HUB_DISABLE_TELEMETRY="1")
        from finetuning.commands.board_work import Workplace
        from finetuning.commands.found_runs import is_run
        from finetuning.web.server import Place, serve

        port = DEFAULT_PORT if arguments.port is None else arguments.port
        runs = runs.absolute().parent if is_run(runs) else runs  # a run was named: it is shown among those beside it
        place = Place(host, port, runs, Path(uploads))
        work = Workplace(runs, Path(uploads), [Path(name).expanduser() for name in arguments.folders])
        try:
            serve({"/en": lambda: _english(work, place), "": lambda: _korean(work, place)}, place, _tell)
        finally:
            work.close()


def _korean(work: Work, place: Place) -> FastAPI:
    """Load the libraries of the page and build it."""
    from finetuning.web.quick_import import import_gradio

    import_gradio()
    from finetuning.web.application import korean_page

    return korean_page(work, place)


def _english(work: Work, place: Place) -> FastAPI:
    from finetuning.web.application import english_page

    return english_page(work, place)


def _tell(address: str) -> None:
    print(f"페이지를 열었습니다: {address}", flush=True)
    how = "브라우저에서 이 주소를 여세요. 끝내려면 Ctrl+C를 누르세요. 학습은 페이지를 닫아도 계속됩니다."
    print(how, file=sys.stderr, flush=True)
