"""A small OpenAI-compatible server in the test's own event loop, on a free loopback port."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Scripted:
    """How one chat request is answered."""

    text: str = ""
    finish: str | None = "stop"
    status: int = 200
    error: str = ""
    """Message of an error answer; with status 200 it comes in the middle of the stream."""
    delay_s: float = 0
    """Before the answer begins."""
    hang: bool = False
    """Send the text, then nothing more until the client goes away."""
    usage: bool = True
    refusal: str = ""
    raw: bytes | None = None
    """A body that is sent instead of everything else."""


@dataclass
class FakeOpenAIServer:
    """Answers requests in the order of `script`, the last entry for ever; keeps what it was asked."""

    script: list[Scripted] = field(default_factory=lambda: [Scripted("hello")])
    answer: Callable[[dict[str, Any]], Scripted] | None = None
    """Answers by what was asked, instead of `script`."""
    models: list[str] = field(default_factory=lambda: ["tiny-1b"])
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    disconnects: int = 0
    base_url: str = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (head := await _head(reader)) is not None:
                line, headers = head
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                if line.startswith("GET /v1/models"):
                    listed = [{"id": name, "object": "model", "created": 0, "owned_by": "t"} for name in self.models]
                    await _send(writer, 200, json.dumps({"object": "list", "data": listed}).encode())
                    continue
                self.headers.append(headers)
                self.requests.append(json.loads(body))
                entry = self._entry(self.requests[-1])
                await self._answer(entry, reader, writer)
                if entry.hang or entry.raw is not None or entry.status == 200:
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            self.disconnects += 1
        finally:
            writer.close()

    def _entry(self, request: dict[str, Any]) -> Scripted:
        if self.answer is not None:
            return self.answer(request)
        return self.script[min(len(self.requests), len(self.script)) - 1]

    async def _answer(self, entry: Scripted, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(entry.delay_s)
        if entry.status != 200:
            await _send(writer, entry.status, json.dumps({"error": {"message": entry.error}}).encode())
            return
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        if entry.raw is not None:
            writer.write(entry.raw)
            await writer.drain()
            return
        for piece in entry.text.splitlines(keepends=True):
            writer.write(_event(_chunk({"content": piece})))
        await writer.drain()
        if entry.hang:
            await reader.read()  # returns when the client closes the connection
            self.disconnects += 1
            return
        if entry.error:
            writer.write(_event({"error": {"message": entry.error}}))
        if entry.refusal:
            writer.write(_event(_chunk({"refusal": entry.refusal})))
        writer.write(_event(_chunk({}, entry.finish)))
        if entry.usage:
            counted = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
            details = {"prompt_tokens_details": {"cached_tokens": 5}}
            writer.write(_event({**_chunk({}), "choices": [], "usage": {**counted, **details}}))
        writer.write(b"data: [DONE]\n\n")
        await writer.drain()


async def _head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]] | None:
    line = (await reader.readline()).decode().strip()
    if not line:
        return None
    headers: dict[str, str] = {}
    while text := (await reader.readline()).decode().strip():
        name, _, value = text.partition(":")
        headers[name.lower()] = value.strip()
    return line, headers


def _chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "tiny-1b", "choices": [choice]}


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


async def _send(writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()


@contextlib.asynccontextmanager
async def serving(*script: Scripted, models: list[str] | None = None) -> AsyncIterator[FakeOpenAIServer]:
    """The server runs inside the block; its `base_url` ends with `/v1`."""
    fake = FakeOpenAIServer()
    if script:
        fake.script = list(script)
    if models is not None:
        fake.models = models
    server = await asyncio.start_server(fake.handle, "127.0.0.1", 0)
    fake.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield fake
    finally:
        server.close()
        await asyncio.sleep(0)


@contextlib.contextmanager
def served_in_thread(*script: Scripted) -> Iterator[FakeOpenAIServer]:
    """The server in a thread with a loop of its own, for tests that block."""
    ready: Future[FakeOpenAIServer] = Future()
    over = threading.Event()

    async def serve() -> None:
        async with serving(*script) as fake:
            ready.set_result(fake)
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="model server")
    thread.start()
    try:
        yield ready.result(10)
    finally:
        over.set()
        thread.join(10)
