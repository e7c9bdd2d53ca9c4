"""What answers while the page is still being loaded, which takes seconds: a page that waits, and then opens it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from finetuning.web.guard import Receive, Scope, Send

_OPENED = "/opened"  # answered as soon as the page can be opened
_TEXTS = {
    "ko": ("한국어 모델 파인튜닝", "페이지를 준비하고 있습니다. 몇 초 뒤에 저절로 열립니다."),
    "en": ("Fine-tuning for Korean", "Getting the page ready. It opens by itself in a few seconds."),
}
_WAITING = """<!doctype html>
<html lang="{language}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>body {{ font-family: system-ui, sans-serif; max-width: 1080px; margin: 0 auto;
padding: 1rem; color-scheme: light dark }} h1 {{ font-size: 1.25rem }}</style></head>
<body><h1>{title}</h1><p role="status">{text}</p><progress aria-label="{title}"></progress>
<script>fetch("{opened}").then(() => location.reload())</script></body></html>
"""


class Opening:
    """An application that hands on to another one as soon as that is loaded.

    Args:
        load: Returns the other one, a FastAPI; it is called in a thread.
        failed: Called with the error where it cannot be loaded.
    """

    def __init__(self, load: Callable[[], Any], failed: Callable[[BaseException], None]) -> None:
        self._load, self._failed = load, failed
        self._page: Any = None
        self._opened, self._closing = asyncio.Event(), asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request: a person who opens the page is told to wait, all else waits."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["type"] == "http" and scope["path"] == _OPENED:
            await self._opened.wait()
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        if self._page is None and _wants_page(scope):
            html = [(b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"no-store")]
            await send({"type": "http.response.start", "status": 200, "headers": html})
            await send({"type": "http.response.body", "body": _waiting(scope["path"])})
            return
        await self._opened.wait()
        await self._page(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Load the page when the server starts, and end it with the server."""
        await receive()
        await send({"type": "lifespan.startup.complete"})
        opening = asyncio.create_task(self._open())
        await receive()
        self._closing.set()
        await opening
        await send({"type": "lifespan.shutdown.complete"})

    async def _open(self) -> None:
        try:
            page = await asyncio.to_thread(self._load)
            async with page.router.lifespan_context(page):
                self._page = page
                self._opened.set()
                await self._closing.wait()
        except Exception as error:
            self._failed(error)


def _wants_page(scope: Scope) -> bool:
    accepted = next((value for name, value in scope.get("headers", ()) if name.lower() == b"accept"), b"")
    return scope["type"] == "http" and b"text/html" in accepted


def _waiting(path: str) -> bytes:
    language = "en" if path.startswith("/en") else "ko"
    title, text = _TEXTS[language]
    return _WAITING.format(language=language, title=title, text=text, opened=_OPENED).encode()
