"""The web server of the page. It listens at once: the page, whose libraries take seconds, is loaded meanwhile."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from exceptions import SettingsError
from finetuning.web.guard import Guard
from finetuning.web.opening import Openings

_HERE = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Place:
    """Where the page is served.

    Attributes:
        host: The address that is listened on.
        port: The port; 0 takes any.
        runs: The folder below which files of runs are served.
        uploads: The folder of what is uploaded.
        largest_upload: Bytes of the largest file that can be uploaded.
    """

    host: str
    port: int
    runs: Path
    uploads: Path
    largest_upload: int = 2 * 2**30

    @property
    def is_here_alone(self) -> bool:
        """Whether nobody but this machine can open the page."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def serve(loads: Mapping[str, Callable[[], Any]], place: Place, tell: Callable[[str], None]) -> None:
    """Serve the page until the process is asked to end.

    Args:
        loads: What returns the page of each language as a FastAPI application, as `Openings` takes it.
        place: Where it is served.
        tell: Called with the address as soon as it is listened on.

    Raises:
        SettingsError: The address cannot be listened on.
    """
    listening = _listen(place)
    port, token = listening.getsockname()[1], "" if place.is_here_alone else secrets.token_urlsafe(24)
    name = place.host if place.is_here_alone else socket.gethostname()
    address = f"http://{f'[{name}]' if ':' in name else name}:{port}/{f'?token={token}' if token else ''}"
    errors = list[BaseException]()

    def failed(error: BaseException) -> None:
        errors.append(error)
        server.should_exit = True

    guarded = Guard(Openings(loads, failed), (*_HERE, place.host) if place.is_here_alone else (), token)
    config = uvicorn.Config(guarded, log_level="error", access_log=False, timeout_graceful_shutdown=1)
    server = _Server(config, lambda: tell(address))
    server.run(sockets=[listening])
    if errors:
        raise errors[0]


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
