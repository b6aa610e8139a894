"""A port of this node's loopback that leads to what runs in an environment now, whichever instance that is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from fleet.errors import ConfigError

__all__ = ["Door", "Streams"]

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_CHUNK = 1 << 16
_MOST = 100
"""Connections at one time; more wait."""


class Door:
    """Passes bytes on, both ways, and looks at none of them.

    Args:
        connect: a connection to what runs now; None where nothing does.
    """

    def __init__(self, port: int, connect: Callable[[], Awaitable[Streams | None]]) -> None:
        self.port, self._connect = port, connect
        self._room = asyncio.Semaphore(_MOST)
        self._server: asyncio.Server | None = None
        self._passing: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """People can come. Raises ConfigError when somebody else has the port. Idempotent."""
        if self._server is None:
            try:
                self._server = await asyncio.start_server(self._came, "127.0.0.1", self.port)
            except OSError as error:
                raise ConfigError(
                    f"port {self.port} of this node cannot be used: {error.strerror}; end what has it, or declare "
                    "another one under expose of the deploy target",
                    port=self.port,
                ) from error

    async def close(self) -> None:
        """Nobody comes any more, and who is there is sent away."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)

    def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._passing.add(task)
        task.add_done_callback(self._passing.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with self._room:
            with contextlib.closing(writer), contextlib.suppress(OSError):
                inside = await self._connect()
                if inside is None:
                    return
                with contextlib.closing(inside[1]):
                    await asyncio.gather(_pump(reader, inside[1]), _pump(inside[0], writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()
