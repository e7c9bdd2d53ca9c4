"""What answers while a page is still being loaded, which takes seconds: a page that waits, and then opens it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
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


class Openings:
    """An application that hands on to pages as soon as they are loaded.

    Args:
        loads: What returns each page as a FastAPI, by the path that its addresses begin with; called in a thread. The
            page of "" has all other addresses. It is loaded when the server starts, the others when they are asked for,
            one after the other.
        failed: Called with the error where a page cannot be loaded.
    """

    def __init__(self, loads: Mapping[str, Callable[[], Any]], failed: Callable[[BaseException], None]) -> None:
        turn = asyncio.Lock()
        self._pages = {path: _Opening(path, load, failed, turn) for path, load in loads.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        begins = next((path for path in self._pages if path and f"{scope['path']}/".startswith(f"{path}/")), "")
        await self._pages[begins].answer(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Load the first page when the server starts, and end all of them with the server."""
        await receive()
        await send({"type": "lifespan.startup.complete"})
        self._pages[""].begin()
        await receive()
        for page in self._pages.values():
            await page.end()
        await send({"type": "lifespan.shutdown.complete"})


class _Opening:
    """One page: a person who opens it is told to wait until it is loaded, all else waits.

    Args:
        path: What its addresses begin with.
        load: Returns it.
        failed: Called with the error where it cannot be loaded.
        turn: Held while a page is loaded.
    """

    def __init__(
        self, path: str, load: Callable[[], Any], failed: Callable[[BaseException], None], turn: asyncio.Lock
    ) -> None:
        self._path, self._load, self._failed = path, load, failed
        self._page: Any = None
        self._life: asyncio.Task[None] | None = None
        self._turn, self._opened, self._closing = turn, asyncio.Event(), asyncio.Event()

    def begin(self) -> None:
        """Load the page, unless that was begun before."""
        if self._life is None:
            self._life = asyncio.create_task(self._live())

    async def end(self) -> None:
        """End the page."""
        self._closing.set()
        if self._life is not None:
            await self._life

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        self.begin()
        if scope["type"] == "http" and scope["path"] == self._path + _OPENED:
            await self._opened.wait()
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        elif self._page is None and _wants_page(scope):
            html = [(b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"no-store")]
            await send({"type": "http.response.start", "status": 200, "headers": html})
            await send({"type": "http.response.body", "body": self._waiting()})
        else:
            await self._opened.wait()
            await self._page(scope, receive, send)

    async def _live(self) -> None:
        try:
            async with self._turn:
                page = await asyncio.to_thread(self._load)
            async with page.router.lifespan_context(page):
                self._page = page
                self._opened.set()
                await self._closing.wait()
        except Exception as error:
            self._failed(error)

    def _waiting(self) -> bytes:
        language = self._path.strip("/") or "ko"
        title, text = _TEXTS[language]
        return _WAITING.format(language=language, title=title, text=text, opened=self._path + _OPENED).encode()


def _wants_page(scope: Scope) -> bool:
    accepted = next((value for name, value in scope.get("headers", ()) if name.lower() == b"accept"), b"")
    return scope["type"] == "http" and b"text/html" in accepted
