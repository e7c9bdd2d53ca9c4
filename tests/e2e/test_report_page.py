"""The report in a real browser: no error, no request, light and dark, and nothing wider than a phone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.browsers import chromium
from tests.support.runs import StopAfter, run_train

TASKS = (
    "text-classification", "question-answering", "text-generation",
    *(pytest.param(task, marks=pytest.mark.soak)
      for task in ("multi-label-classification", "text-regression", "token-classification")),
)  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.mark.parametrize("task", TASKS)
def test_the_page_of_every_kind_of_task_opens(
    task: str, browser: Any, flags_for: Callable[[str], list[str]], tmp_path: Path
) -> None:
    output_dir = tmp_path / "out" / "model"
    run_train([*flags_for(task), "--output_dir", str(output_dir), "--set", "logging.report=true"], StopAfter())
    said, asked = list[str](), list[str]()
    page = browser.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    address = (output_dir / "report.html").as_uri()
    grounds = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto(address)
        grounds[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.set_viewport_size({"width": 360, "height": 740})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, "nothing is wider than a phone"
    assert grounds["light"] != grounds["dark"]
    assert page.locator("#verdict").count() == 1 and page.locator("svg text").count() > 10
    cases = page.locator(".case")
    if cases.count():
        page.fill("#find", "그런 텍스트는 없다")
        assert page.locator(".case:visible").count() == 0 and page.inner_text("#count") == "0"
        page.fill("#find", "")
        assert page.locator(".case:visible").count() == cases.count()
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == grounds["light"], "paper is white"
    page.close()
    assert said == [] and set(asked) == {address}
