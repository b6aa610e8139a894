"""A server of models that plays scenes: any status, any stream, any way to break off. It runs in the test's loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Scene:
    """How one request is answered."""

    parts: Sequence[bytes] = ()
    status: int = 200
    content_type: str = "text/event-stream"
    headers: Mapping[str, str] = field(default_factory=dict)
    end: Literal["close", "cut", "hang", "endless", "drip", "silent"] = "close"
    """After the parts: the answer ends; breaks off in its middle; goes on never; repeats its last part for ever; sends
    its last part byte by byte, for ever. `silent` sends nothing at all."""


@dataclass(frozen=True)
class Asked:
    """One request; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    document: Any


@dataclass
class ModelServer:
    """Plays its scenes in order, the last one for ever; the list of models is always the same."""

    scenes: list[Scene]
    models: list[str]
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    open: set[asyncio.StreamWriter] = field(default_factory=set)
    """Connections that the client still holds."""
    sent_bytes: int = 0

    @property
    def calls(self) -> list[Asked]:
        """The requests for a reply."""
        return [asked for asked in self.asked if asked.method == "POST"]

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.open.add(writer)
        try:
            if (asked := await _asked(reader)) is None:
                return
            self.asked.append(asked)
            if asked.method == "GET":
                await self._send(writer, _listed(self.models))
            else:
                await self._play(self.scenes[min(len(self.calls), len(self.scenes)) - 1], reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self.open.discard(writer)

    async def _play(self, scene: Scene, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if scene.end == "silent":
            await reader.read()
            return
        # A body that breaks off shows as an error only where its length was announced, here in chunks.
        how = "transfer-encoding: chunked" if scene.end == "cut" else "connection: close"
        extra = "".join(f"{name}: {value}\r\n" for name, value in scene.headers.items())
        await self._send(
            writer, f"HTTP/1.1 {scene.status} X\r\ncontent-type: {scene.content_type}\r\n{extra}{how}\r\n\r\n".encode()
        )
        for part in scene.parts:
            await self._send(writer, b"%x\r\n%s\r\n" % (len(part), part) if scene.end == "cut" else part)
        match scene.end:
            case "hang":
                await reader.read()
            case "endless":
                while True:
                    await self._send(writer, scene.parts[-1])
            case "drip":
                while True:
                    for at in range(len(scene.parts[-1])):
                        await self._send(writer, scene.parts[-1][at : at + 1])
                        await asyncio.sleep(0.005)
            case _:
                pass

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        self.sent_bytes += len(data)
        writer.write(data)
        await writer.drain()


@contextlib.asynccontextmanager
async def playing(*scenes: Scene, models: Sequence[str] = ("tiny-1b",)) -> AsyncIterator[ModelServer]:
    """The server plays inside the block; its `url` has no path."""
    model_server = ModelServer(list(scenes) or [Scene()], list(models))
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await model_server.handle(reader, writer)
        except asyncio.CancelledError:
            pass
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    model_server.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield model_server
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _listed(models: Sequence[str]) -> bytes:
    data = [{"id": name, "object": "model", "type": "model", "created": 0, "owned_by": "t"} for name in models]
    body = json.dumps({"object": "list", "data": data, "has_more": False}).encode()
    return b"HTTP/1.1 200 X\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n" + body


async def _asked(reader: asyncio.StreamReader) -> Asked | None:
    line = (await reader.readline()).decode().split()
    if len(line) < 2:
        return None
    headers: dict[str, str] = {}
    while text := (await reader.readline()).decode().strip():
        name, _, value = text.partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(line[0], line[1].split("?")[0], headers, json.loads(body) if body else None)
