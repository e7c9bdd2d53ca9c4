"""What stands before the page: who may ask, and that the page asks nobody outside."""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_COOKIE = "board_token"
# what Gradio's template loads from elsewhere: a script for pages in frames, and fonts
_OUTSIDE = re.compile(rb"<script[^>]+src=\"https?://[^>]*>\s*</script>|<link[^>]+href=\"https?://[^>]*>")
_POLICY = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"
_NOT_FOR_YOU = (
    "이 페이지를 열 수 없습니다. 터미널에 나온 주소를 token까지 그대로 붙여 넣으세요.\n"
    "Open the page by the whole address that the terminal shows, with its token."
)


class Guard:
    """Refuses requests of other pages and of people without the token, and keeps the page from asking outside.

    Args:
        application: The page.
        hosts: Names under which this machine may be addressed; empty allows all, where a token is asked for.
        token: What the address has to hold the first time; "" asks for none.
    """

    def __init__(self, application: Application, hosts: Sequence[str], token: str) -> None:
        self.application, self.hosts, self.token = application, frozenset(hosts), token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] not in ("http", "websocket"):
            await self.application(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if not self._is_from_here(headers):
            await _refuse(scope, send)
            return
        if self.token and not self._has_token(headers):
            given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
            if not secrets.compare_digest(given.encode(), self.token.encode()):
                await _refuse(scope, send)
                return
            cookie = f"{_COOKIE}={self.token}; Path=/; HttpOnly; SameSite=Strict"
            moved = [(b"location", scope["path"].encode()), (b"set-cookie", cookie.encode())]
            await send({"type": "http.response.start", "status": 303, "headers": moved})
            await send({"type": "http.response.body", "body": b""})
            return
        await self.application(scope, receive, _WithoutOutside(send))

    def _is_from_here(self, headers: MutableMapping[str, str]) -> bool:
        """Return whether a request names this machine, and comes from no page of another site."""
        host = headers.get("host", "")
        if self.hosts and (urlsplit(f"//{host}").hostname or "") not in self.hosts:
            return False
        return "origin" not in headers or urlsplit(headers["origin"]).netloc == host

    def _has_token(self, headers: MutableMapping[str, str]) -> bool:
        found = SimpleCookie(headers.get("cookie", "")).get(_COOKIE)
        return found is not None and secrets.compare_digest(found.value.encode(), self.token.encode())


async def _refuse(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    kind = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 403, "headers": kind})
    await send({"type": "http.response.body", "body": _NOT_FOR_YOU.encode()})


class _WithoutOutside:
    """Takes out of an HTML page what it would load from elsewhere, and tells the browser to load nothing from there."""

    def __init__(self, send: Send) -> None:
        self.send, self.parts = send, list[bytes]()
        self.start: MutableMapping[str, Any] | None = None

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = dict(message["headers"])
            if b"content-security-policy" not in headers:
                message["headers"] = [*message["headers"], (b"content-security-policy", _POLICY)]
            if headers.get(b"content-type", b"").startswith(b"text/html") and b"content-encoding" not in headers:
                self.start = message
                return
        if message["type"] != "http.response.body" or self.start is None:
            await self.send(message)
            return
        self.parts.append(message.get("body", b""))
        if message.get("more_body"):
            return
        body = _OUTSIDE.sub(b"", b"".join(self.parts))
        kept = [(name, value) for name, value in self.start["headers"] if name.lower() != b"content-length"]
        await self.send({**self.start, "headers": [*kept, (b"content-length", str(len(body)).encode())]})
        await self.send({"type": "http.response.body", "body": body})
