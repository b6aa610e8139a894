"""A request to an ASGI application in this process; its answer comes piece by piece."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Scope

from serve_apps.rpc.transcode import HttpCall

_PIECES = 16
"""Pieces of an answer that wait for a slow reader; the application waits behind them."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The head of an answer, and its body as it comes."""

    status: int
    pieces: AsyncIterator[bytes]

    async def body(self) -> bytes:
        """The rest of the body as a whole."""
        return b"".join([piece async for piece in self.pieces])


@asynccontextmanager
async def asked(app: ASGIApp, call: HttpCall, headers: Iterable[tuple[str, str]]) -> AsyncGenerator[Reply]:
    """The answer has begun; at the end of the block the application is told that nobody reads any more."""
    queue: asyncio.Queue[Message | None] = asyncio.Queue(_PIECES)
    is_gone, is_sent = asyncio.Event(), False

    async def receive() -> Message:
        nonlocal is_sent
        if not is_sent:
            is_sent = True
            return {"type": "http.request", "body": call.body or b"", "more_body": False}
        await is_gone.wait()
        return {"type": "http.disconnect"}

    async def run() -> None:
        try:
            await app(_scope(call, headers), receive, queue.put)
        finally:
            if not is_gone.is_set():
                await queue.put(None)

    task = asyncio.create_task(run())
    try:
        head = await queue.get()
        if head is None:
            await task
            raise AssertionError("an application answers every request")
        yield Reply(head["status"], _pieces(queue))
    finally:
        is_gone.set()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _pieces(queue: asyncio.Queue[Message | None]) -> AsyncIterator[bytes]:
    while (message := await queue.get()) is not None:
        if message["type"] == "http.response.body":
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body"):
                return


def _scope(call: HttpCall, headers: Iterable[tuple[str, str]]) -> Scope:
    path, _, query = call.target.partition("?")
    named = [(b"host", b"fleet"), *((name.encode(), value.encode()) for name, value in headers)]
    if call.body is not None:
        named += [(b"content-type", b"application/json"), (b"content-length", str(len(call.body)).encode())]
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": call.method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": named,
        "client": None,
        "server": ("fleet", 80),
    }
