"""The whole job on the page, in a real browser: from the example data to a trained model that answers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT

_LONG_MS = 240_000


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a page that is served, and the folder of its runs."""
    pytest.importorskip("gradio", minversion="6.0.0", reason="the page needs Gradio 6 (make board)")
    runs = tmp_path_factory.mktemp("board") / "models"
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "finetuning_app.py"), "board", str(runs), "--port", "0"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, encoding="utf-8", start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    address = process.stdout.readline().rpartition(" ")[2].strip()
    yield address, runs
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(60) == 128 + signal.SIGINT


@pytest.fixture(scope="module")
def page(board: tuple[str, Path]) -> Iterator[Any]:
    """The page in Debian's chromium; nothing may go wrong on it, and nothing may be fetched from elsewhere."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium is installed (apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api")
    wrong, asked = list[str](), list[str]()
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1000, "height": 900})
        opened.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        opened.on("pageerror", lambda error: wrong.append(str(error)))
        opened.on("request", lambda request: asked.append(request.url))
        opened.set_default_timeout(60_000)
        opened.goto(board[0])
        yield opened
        browser.close()
    assert wrong == []
    assert [url for url in asked if not url.startswith((board[0], "data:", "blob:", "about:"))] == []


def tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def test_the_whole_job(page: Any, board: tuple[str, Path]) -> None:
    page.click("#data-example")
    page.wait_for_selector("#data-found h4")
    found = page.inner_text("#data-found")
    assert "긍정" in found and "라벨 3가지" in found
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360, "nothing is wider than a phone"
    page.set_viewport_size({"width": 1000, "height": 900})
    tab(page, "3. 학습")
    page.wait_for_selector("#train-command code")
    page.get_by_text("설정 바꾸기").click()
    epochs = page.locator("#training-epochs").locator("input, textarea")
    epochs.press_sequentially("x")
    page.wait_for_selector("#train-command .problem")
    assert "training.epochs" in page.inner_text("#train-command")
    epochs.press("Backspace")
    epochs.press_sequentially("1.5")
    page.wait_for_selector("#train-command .problem")
    epochs.press("Backspace")
    epochs.press("Backspace")
    page.wait_for_selector("#train-command code >> text=--epochs 1")
    page.click("#train-start")
    page.wait_for_selector("#train-live progress", timeout=_LONG_MS)
    page.reload()  # closed and opened again, the page shows the same run
    tab(page, "3. 학습")
    page.wait_for_selector("#train-live >> text=학습이 끝났습니다", timeout=_LONG_MS)
    assert (board[1] / "reviews" / "summary.json").is_file()
    tab(page, "4. 결과")
    page.wait_for_selector("#results-found iframe")
    assert "정확도" in page.inner_text("#results-found")
    tab(page, "5. 써 보기")
    page.wait_for_selector("#try-model input")
    page.wait_for_function("document.querySelector('#try-model input').value == 'reviews'")
    page.click("#try-load")
    page.wait_for_selector("#try-text-0 textarea", timeout=_LONG_MS)
    page.locator("#try-text-0 textarea").press_sequentially("정말 재미있어요")
    page.click("#try-ask")
    page.wait_for_selector("#try-answers h3")
    assert page.inner_text("#try-answers h3") in ("긍정", "부정", "중립")


def test_a_path_outside_of_the_folders_is_refused(page: Any) -> None:
    tab(page, "1. 데이터")
    page.get_by_text("다른 방법").click()
    page.locator("#data-path").locator("input, textarea").press_sequentially("/etc/hosts")
    page.click("#data-read")
    page.wait_for_selector("#data-found .problem")
    assert "폴더 밖" in page.inner_text("#data-found")
