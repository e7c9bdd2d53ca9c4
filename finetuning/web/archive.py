"""Files as a zip that is made while it is downloaded, so that a large model is not written to the disk twice."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

_CHUNK = 1 << 20


class _Pipe(io.RawIOBase):
    """What was written and not taken yet."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        found = b"".join(self.parts)
        self.parts.clear()
        return found


def zipped(paths: Iterable[Path]) -> Iterator[bytes]:
    """Yield a zip of files, by their names; weights do not get smaller, so nothing is compressed."""
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:
        for path in paths:
            with path.open("rb") as source, archive.open(zipfile.ZipInfo.from_file(path, path.name), "w") as target:
                while block := source.read(_CHUNK):
                    target.write(block)
                    yield pipe.take()
            yield pipe.take()
    yield pipe.take()
