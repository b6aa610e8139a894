"""A TCP relay on the loopback that misbehaves when it is told to, and counts each time that it did.

Faults in force (attributes; `heal` clears all of them): `is_silent` throws away what comes from either side, `is_held`
keeps it back and delivers it after `heal` as TCP does after a partition, `is_half_open` lets requests through but no
reply, `is_refusing` ends new connections at once, `delay_s` slows both directions down. Faults of one connection each:
`lose_reply_to`, `cut_at`, `cut_after`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

COMMIT = b"\x00\x02\xb0\x12\x00\x00"
"""The message COMMIT of Bolt 3 to 5, with its chunk header and end mark."""

_CHUNK = 65_536


@dataclass
class FaultProxy:
    """Relays every connection to `host:target_port`, and counts the faults that really happened."""

    host: str
    target_port: int
    port: int = 0
    is_silent: bool = False
    is_held: bool = False
    is_half_open: bool = False
    is_refusing: bool = False
    delay_s: float = 0.0
    connections: int = 0
    """Connections that were relayed."""
    lost: int = 0
    """Replies that were thrown away, each with its connection."""
    cuts: int = 0
    """Connections that were ended in the middle, by `cut_at` or `cut_after`."""
    swallowed: int = 0
    """Pieces that were thrown away, of requests or replies."""
    held: int = 0
    """Pieces that were kept back until `heal`."""
    refused: int = 0
    """Connections that were ended at once."""
    delayed: int = 0
    """Pieces that were passed on late."""
    _lose: list[bytes] = field(default_factory=list[bytes])
    _cut_at: list[bytes] = field(default_factory=list[bytes])
    _cut_after: list[int] = field(default_factory=list[int])
    _healed: asyncio.Event = field(default_factory=asyncio.Event)

    def lose_reply_to(self, marker: bytes, *, times: int = 1) -> None:
        """The next requests that contain `marker` reach the server, but their connections end before the reply."""
        self._lose += [marker] * times

    def cut_at(self, marker: bytes, *, times: int = 1) -> None:
        """The next requests that contain `marker` are passed on and their connections cut at that very moment."""
        self._cut_at += [marker] * times

    def cut_after(self, bytes_to_server: int, *, times: int = 1) -> None:
        """The next connections to send anything end once the server got so many bytes: in the middle of a request."""
        self._cut_after += [bytes_to_server] * times

    def heal(self) -> None:
        """Nothing goes wrong any more; what was held is delivered."""
        self.is_silent = self.is_held = self.is_half_open = self.is_refusing = False
        self.delay_s = 0.0
        self._lose, self._cut_at, self._cut_after = [], [], []
        self._healed.set()

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side ends it."""
        if self.is_refusing:
            self.refused += 1
            writer.close()
            return
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection(self.host, self.target_port)
        except OSError:
            writer.close()
            return
        self.connections += 1
        doomed = asyncio.Event()
        pumps = [
            asyncio.ensure_future(self._requests(reader, upstream_writer, doomed)),
            asyncio.ensure_future(self._replies(upstream_reader, writer, doomed)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Closed before the next await: this task may be cancelled once more there.
            writer.close()
            upstream_writer.close()
            for pump in pumps:
                pump.cancel()
            # Also when the client gave up first, as under load: it has no reply, and the request was passed on.
            self.lost += doomed.is_set()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _requests(
        self, reader: asyncio.StreamReader, upstream: asyncio.StreamWriter, doomed: asyncio.Event
    ) -> None:
        left: int | None = None
        while data := await reader.read(_CHUNK):
            if await self._is_swallowed():
                continue
            if left is None and self._cut_after:
                left = self._cut_after.pop(0)
            is_cut = _take(self._cut_at, data) or (left is not None and len(data) >= left)
            if _take(self._lose, data):
                doomed.set()
            upstream.write(data if left is None else data[:left])
            await upstream.drain()
            if is_cut:
                self.cuts += 1
                return
            left = None if left is None else left - len(data)

    async def _replies(
        self, upstream: asyncio.StreamReader, writer: asyncio.StreamWriter, doomed: asyncio.Event
    ) -> None:
        while data := await upstream.read(_CHUNK):
            if doomed.is_set():
                return
            if await self._is_swallowed():
                continue
            if self.is_half_open:
                self.swallowed += 1
                continue
            writer.write(data)
            await writer.drain()

    async def _is_swallowed(self) -> bool:
        """Whether a piece just read is thrown away; returns late when it is delayed or held."""
        if self.is_silent:
            self.swallowed += 1
            return True
        if self.delay_s:
            self.delayed += 1
            await asyncio.sleep(self.delay_s)
        if self.is_held:
            self.held += 1
            self._healed.clear()
            await self._healed.wait()
        return False


def _take(markers: list[bytes], data: bytes) -> bool:
    """Whether the next marker is in the data; it is used up then."""
    if not markers or markers[0] not in data:
        return False
    markers.pop(0)
    return True


@asynccontextmanager
async def proxied(url: str) -> AsyncGenerator[tuple[FaultProxy, str]]:
    """A proxy in front of the server at `url`, and the URL through it."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    proxy = FaultProxy(parts.hostname, parts.port)
    relays: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relay = asyncio.ensure_future(proxy.relay(reader, writer))
        relays.add(relay)
        relay.add_done_callback(relays.discard)
        # A relay that is cancelled before it begins closes nothing itself.
        relay.add_done_callback(lambda _: writer.close())

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    through = parts._replace(netloc=parts.netloc.replace(f"{parts.hostname}:{parts.port}", f"127.0.0.1:{proxy.port}"))
    try:
        yield proxy, through.geturl()
    finally:
        server.close()
        for relay in list(relays):
            relay.cancel()
        await asyncio.gather(*relays, return_exceptions=True)
