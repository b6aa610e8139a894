"""A small HTTP/1.1 server in the test's own event loop, for stand-ins of real APIs: plain or TLS, slow on demand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Request:
    """What was asked; header names in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """What is answered."""

    status: int = 200
    document: Any = None
    raw: bytes | None = None
    """Bytes that are sent instead of the document."""
    hang: bool = False
    """Answer nothing until the client goes away."""
    drip: bool = False
    """Send the head, then one byte of white space after the other, for ever."""
    headers: Mapping[str, str] = field(default_factory=dict)
    is_lost: bool = False
    """Close the connection instead: what was asked for is done, and its answer never arrives."""
    stream: AsyncIterator[bytes] | None = None
    """A body of unknown length instead of the document, part by part as it comes; then the connection is closed."""


@contextlib.asynccontextmanager
async def serving_http(answer: Callable[[Request], Reply], *, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """The server's base URL; it answers every request inside the block."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await _serve(answer, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _serve(
    answer: Callable[[Request], Reply], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    while (request := await _request(reader)) is not None:
        reply = answer(request)
        if reply.hang:
            await reader.read()
            return
        if reply.is_lost:
            return
        if reply.stream is not None:
            await _stream(reply, reply.stream, writer)
            return
        body = reply.raw if reply.raw is not None else json.dumps(reply.document).encode()
        size = 10_000_000 if reply.drip else len(body)
        headers = {"content-type": "application/json", **reply.headers}
        extra = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {reply.status} X\r\ncontent-length: {size}\r\n{extra}\r\n"
        writer.write(head.encode() + (b"" if reply.drip else body))
        await writer.drain()
        while reply.drip:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)


async def _stream(reply: Reply, parts: AsyncIterator[bytes], writer: asyncio.StreamWriter) -> None:
    writer.write(f"HTTP/1.1 {reply.status} X\r\nconnection: close\r\n\r\n".encode())
    await writer.drain()
    async for part in parts:
        writer.write(part)
        await writer.drain()


async def _request(reader: asyncio.StreamReader) -> Request | None:
    line = (await reader.readline()).decode().split()
    if len(line) < 2:
        return None
    headers: dict[str, str] = {}
    while text := (await reader.readline()).decode().strip():
        name, _, value = text.partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    url = urlsplit(line[1])
    query = {key: values[0] for key, values in parse_qs(url.query).items()}
    return Request(line[0], url.path, query, headers, body)
