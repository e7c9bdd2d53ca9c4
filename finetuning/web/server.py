"""The web server of the page: the page in two languages, the files of runs, and the guard before them."""

from __future__ import annotations

import ipaddress
import mimetypes
import secrets
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI
from fastapi.responses import FileResponse, PlainTextResponse, Response, StreamingResponse

from exceptions import SettingsError
from finetuning.web.archive import zipped
from finetuning.web.guard import Guard
from finetuning.web.language import english, korean
from finetuning.web.page import build
from finetuning.web.style import CSS, theme
from finetuning.web.work import Work

_HERE = ("127.0.0.1", "localhost", "::1")
_LARGEST_UPLOAD = 2 * 2**30  # bytes
# The report has scripts of its own, which may draw it and reach nothing.
_REPORT_POLICY = "sandbox allow-scripts; default-src 'unsafe-inline' data:"


@dataclass(frozen=True)
class Place:
    """Where the page is served.

    Attributes:
        host: The address that is listened on.
        port: The port; 0 takes any.
        runs: The folder below which files of runs are served.
        uploads: The folder of what is uploaded.
    """

    host: str
    port: int
    runs: Path
    uploads: Path

    @property
    def is_here_alone(self) -> bool:
        """Whether nobody but this machine can open the page."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def serve(work: Work, place: Place, tell: Callable[[str], None]) -> None:
    """Serve the page until the process is asked to end.

    Args:
        work: What the commands do.
        place: Where it is served.
        tell: Called with the address as soon as the page can be opened.

    Raises:
        SettingsError: The address cannot be listened on.
    """
    listening = _listen(place)
    port, token = listening.getsockname()[1], "" if place.is_here_alone else secrets.token_urlsafe(24)
    application = Guard(_application(work, place), (*_HERE, place.host) if place.is_here_alone else (), token)
    config = uvicorn.Config(application, log_level="error", access_log=False, timeout_graceful_shutdown=1)
    name = place.host if place.is_here_alone else socket.gethostname()
    address = f"http://{f'[{name}]' if ':' in name else name}:{port}/{f'?token={token}' if token else ''}"
    _Server(config, lambda: tell(address)).run(sockets=[listening])


class _Server(uvicorn.Server):
    """A server that tells when it listens."""

    def __init__(self, config: uvicorn.Config, tell: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell = tell

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._tell()


def _listen(place: Place) -> socket.socket:
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((place.host, place.port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise SettingsError(
            f"페이지를 열 수 없습니다: {getattr(error, 'strerror', None) or error}",
            where=f"--host {place.host} --port {place.port}",
            remedy=f"다른 프로그램이 쓰고 있으면 다른 포트를 쓰세요: --port {(place.port + 1) % 65536}",
        ) from None
    return listening


def _application(work: Work, place: Place) -> Any:
    application = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @application.get("/run-file/{path:path}")
    def run_file(path: str) -> Response:
        found = _file_below(place.runs, path)
        if found is None:
            return PlainTextResponse("파일이 없습니다.", status_code=404)
        kind = mimetypes.guess_type(found.name)[0] or "application/octet-stream"
        if kind == "text/html":
            return FileResponse(found, media_type=kind, headers={"content-security-policy": _REPORT_POLICY})
        return FileResponse(found, media_type=kind, filename=found.name)

    @application.get("/run-zip/{path:path}")
    def run_zip(path: str) -> Response:
        folder = (place.runs / path).resolve()
        if not folder.is_relative_to(place.runs.resolve()) or not (folder / "config.json").is_file():
            return PlainTextResponse("모델이 없습니다.", status_code=404)
        kind = {"content-disposition": "attachment; filename=model.zip"}
        return StreamingResponse(_chunks(folder), media_type="application/zip", headers=kind)

    for address, say, other in (("/en", english, ("/", "한국어")), ("/", korean, ("/en", "English"))):
        page = build(work, say, other)
        gr.mount_gradio_app(
            application, page, path=address, theme=theme(), css=CSS, max_file_size=_LARGEST_UPLOAD, show_error=True,
            footer_links=[], run_history=False, allowed_paths=[str(place.uploads)],
        )  # fmt: skip
    return application


def _chunks(folder: Path) -> Iterator[bytes]:
    return zipped(path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith("."))


def _file_below(folder: Path, path: str) -> Path | None:
    """Return a file of a run; None for one outside of the folder, or one that no person would look for."""
    found = (folder / path).resolve()
    hidden = any(part.startswith(".") for part in Path(path).parts)
    return found if found.is_relative_to(folder.resolve()) and not hidden and found.is_file() else None
