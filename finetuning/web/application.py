"""The page in one language, with the files of runs, as an application that a server serves."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import gradio as gr
from fastapi import FastAPI
from fastapi.responses import FileResponse, PlainTextResponse, Response, StreamingResponse

from finetuning.reporting.page.names import FILES
from finetuning.reporting.samples import SAMPLES_FILE
from finetuning.web.archive import zipped
from finetuning.web.language import Say, english, korean
from finetuning.web.page import build
from finetuning.web.server import Place
from finetuning.web.style import CSS, theme
from finetuning.web.upload_limit import upload_limit
from finetuning.web.work import Work

# The report has scripts of its own, which may draw it and reach nothing.
_REPORT_POLICY = "sandbox allow-scripts; default-src 'unsafe-inline' data:"


def korean_page(work: Work, place: Place) -> FastAPI:
    """Build the page in Korean, with the files of runs.

    Args:
        work: What the commands do.
        place: The folders below which files are served.

    Returns:
        The application.
    """
    made = _empty()
    _serve_files(made, place.runs.resolve())  # before the page, which takes all addresses
    _mount(made, "/", build(work, korean, ("/en/", "English")), place, korean)
    return made


def english_page(work: Work, place: Place) -> FastAPI:
    """Build the page in English, below /en; see `korean_page` for the arguments."""
    made = _empty()
    _mount(made, "/en", build(work, english, ("/", "한국어")), place, english)
    return made


def _empty() -> FastAPI:
    return FastAPI(docs_url=None, redoc_url=None, openapi_url=None)


def _mount(made: FastAPI, address: str, page: gr.Blocks, place: Place, say: Say) -> None:
    """Serve a page below an address; Gradio's own words are in the language of the browser."""
    language = f"<script>document.documentElement.lang = '{say('ko', 'en')}'</script>"
    gr.mount_gradio_app(
        made, page, path=address, theme=theme(), css=CSS, max_file_size=place.largest_upload,
        show_error=True, footer_links=[], run_history=False, allowed_paths=[str(place.uploads)],
        head=language + upload_limit(place.largest_upload, say),
    )  # fmt: skip


def _serve_files(made: FastAPI, runs: Path) -> None:
    """Serve files of the runs below a folder."""

    @made.get("/run-file/{path:path}")
    def run_file(path: str) -> Response:
        found = _file_below(runs, path)
        if found is None:
            return PlainTextResponse("파일이 없습니다.", status_code=404)
        kind = mimetypes.guess_type(found.name)[0] or "application/octet-stream"
        if kind == "text/html":
            return FileResponse(found, media_type=kind, headers={"content-security-policy": _REPORT_POLICY})
        return FileResponse(found, media_type=kind, filename=found.name)

    @made.get("/run-zip/{path:path}")
    def run_zip(path: str) -> Response:
        folder = (runs / path).resolve()
        names = ("config.json", "adapter_config.json")
        if not folder.is_relative_to(runs) or not any((folder / name).is_file() for name in names):
            return PlainTextResponse("모델이 없습니다.", status_code=404)
        kind = {"content-disposition": f"attachment; filename*=UTF-8''{quote(folder.name)}.zip"}
        return StreamingResponse(_chunks(folder), media_type="application/zip", headers=kind)


def _chunks(folder: Path) -> Iterator[bytes]:
    """Yield a zip of a model's files, without those that hold texts of the data."""
    kept_here = {*FILES, SAMPLES_FILE}
    files = (path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith("."))
    return zipped(path for path in files if path.name not in kept_here)


def _file_below(folder: Path, path: str) -> Path | None:
    """Return a file of a run; None for one outside of the folder, or one that no person would look for."""
    found = (folder / path).resolve()
    hidden = any(part.startswith(".") for part in Path(path).parts)
    return found if found.is_relative_to(folder) and not hidden and found.is_file() else None
