"""The page as an application: what may be uploaded, and which files of runs are served."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("application") / "models"
    (folder / "run" / ".hidden").mkdir(parents=True)
    for name in ("run/report.html", "run/.hidden/key", "../secret"):
        (folder / name).write_text("text", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def client(runs: Path) -> Iterator[Any]:
    """A client of the page, to which files of up to 1,000 bytes can be uploaded."""
    pytest.importorskip("gradio", minversion="6.0.0", reason="the page needs Gradio 6 (make board)")
    from fastapi.testclient import TestClient

    from finetuning.commands.board_work import Workplace
    from finetuning.web.application import korean_page
    from finetuning.web.server import Place

    uploads = runs.parent / "uploads"
    work = Workplace(runs, uploads, [])
    with TestClient(korean_page(work, Place("127.0.0.1", 0, runs, uploads, largest_upload=1000))) as opened:
        yield opened
    work.close()


@pytest.mark.parametrize(("size", "code"), [(1000, 200), (5000, 413)])
def test_a_file_that_is_too_large_is_refused(client: Any, size: int, code: int) -> None:
    files = {"files": ("data.csv", b"x" * size, "text/csv")}
    assert client.post("/gradio_api/upload", files=files).status_code == code


def test_files_of_runs_are_served_and_no_others(client: Any) -> None:
    report = client.get("/run-file/run/report.html")
    assert report.text == "text" and "sandbox" in report.headers["content-security-policy"]
    for path in ("run/.hidden/key", "..%2Fsecret", "run/none"):
        assert client.get(f"/run-file/{path}").status_code == 404
