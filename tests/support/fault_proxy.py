"""A TCP relay on the loopback that loses replies, or goes silent, when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

__all__ = ["FaultProxy", "proxied"]


@dataclass
class FaultProxy:
    """Relays every connection to `host:port`. Faults that happened are counted, so that a test can prove its own."""

    host: str
    target_port: int
    port: int = 0
    lost: int = 0
    """Replies that were thrown away, each with its connection."""
    is_silent: bool = False
    """While true nothing is passed on, and nothing is closed either."""
    _doomed: list[bytes] = field(default_factory=list)

    def lose_reply_to(self, marker: bytes, *, times: int = 1) -> None:
        """The next requests that contain `marker` reach the server, but their connections end before the reply."""
        self._doomed += [marker] * times

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side ends it."""
        upstream_reader, upstream_writer = await asyncio.open_connection(self.host, self.target_port)
        cut = asyncio.Event()
        pumps = [
            asyncio.ensure_future(self._requests(reader, upstream_writer, cut)),
            asyncio.ensure_future(self._replies(upstream_reader, writer, cut)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            writer.close()
            upstream_writer.close()

    async def _requests(self, reader: asyncio.StreamReader, upstream: asyncio.StreamWriter, cut: asyncio.Event) -> None:
        while data := await reader.read(65536):
            if self.is_silent:
                continue
            if self._doomed and self._doomed[0] in data:
                self._doomed.pop(0)
                cut.set()
            upstream.write(data)
            await upstream.drain()

    async def _replies(self, upstream: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: asyncio.Event) -> None:
        while data := await upstream.read(65536):
            if cut.is_set():
                self.lost += 1
                return
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def proxied(url: str) -> AsyncGenerator[tuple[FaultProxy, str]]:
    """A proxy in front of the server at `url`, and the URL through it."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    proxy = FaultProxy(parts.hostname, parts.port)
    relays: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relays.add(asyncio.ensure_future(proxy.relay(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    through = parts._replace(netloc=parts.netloc.replace(f"{parts.hostname}:{parts.port}", f"127.0.0.1:{proxy.port}"))
    try:
        yield proxy, through.geturl()
    finally:
        server.close()
        for relay in relays:
            relay.cancel()
        await asyncio.gather(*relays, return_exceptions=True)
