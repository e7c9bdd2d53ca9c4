"""The guard before the page: other names, other pages and people without the token are refused; nothing is fetched."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from finetuning.web.guard import Guard

HTML = (
    b'<html><link rel="preconnect" href="https://fonts.example/a" /><script src="https://cdn.example/x.js" async>'
    b'</script><link rel="icon" href="./own.png" /></html>'
)


async def _page(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
    await send({"type": "http.response.body", "body": HTML[:50], "more_body": True})
    await send({"type": "http.response.body", "body": HTML[50:]})


def asked(guard: Guard, query: str = "", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a request."""
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> MutableMapping[str, Any]:
        return {}

    scope = {
        "type": "http", "path": "/", "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    asyncio.run(guard(scope, receive, send))
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, b"".join(one.get("body", b"") for one in sent[1:])


def test_nothing_is_loaded_from_elsewhere() -> None:
    status, headers, body = asked(Guard(_page, ("localhost",), ""), host="localhost:7860")
    assert status == 200 and b"https://" not in body and b"./own.png" in body
    assert headers["content-length"] == str(len(body)) and "default-src 'self'" in headers["content-security-policy"]


@pytest.mark.parametrize(
    "headers", [{"host": "evil.example"}, {"host": "localhost:7860", "origin": "http://evil.example"}, {}]
)
def test_other_names_and_other_pages_are_refused(headers: dict[str, str]) -> None:
    assert asked(Guard(_page, ("localhost",), ""), **headers)[0] == 403


def test_the_token_is_asked_for_once() -> None:
    guard = Guard(_page, (), "secret")
    assert asked(guard, host="pc:7860")[0] == 403
    assert asked(guard, "token=wrong", host="pc:7860")[0] == 403
    status, headers, _ = asked(guard, "token=secret", host="pc:7860")
    assert status == 303 and headers["location"] == "/" and "HttpOnly" in headers["set-cookie"]
    assert asked(guard, host="pc:7860", cookie=headers["set-cookie"].split(";")[0])[0] == 200
