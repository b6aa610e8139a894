"""A relay in front of the log store that reads each append on its way, so that a fault hits between two exact events.

It runs on a thread of its own: actors of a fleet are connected to it for longer than one test. Rules are called on
that thread's loop, before an append reaches the store or after its reply came back.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_LOG_KEY = re.compile(rb"fleet:\{p\d\d\}:(.+):log")
_OWNER = re.compile(rb'"owner":"([^"/]+)/(\d+)-')
_WORD = re.compile(rb"\$\d+\r\n([A-Z]+)\r\n")
_TYPE = re.compile(rb"[A-Z][a-z]+(?:[A-Z][a-z]+)+")


@dataclass
class Append:
    """One append as it went to the store. `outcome` is the first word of the reply: OK, DUP, FENCED, CONFLICT ..."""

    stream: str
    command_id: str
    epoch: int
    types: tuple[str, ...]
    """Types of its events in order."""
    last_hash: str
    owner: tuple[str, int] | None
    """Shard and process id that an OwnershipTaken among the events names."""
    outcome: str = ""
    is_delivered: bool = False
    """Whether the reply was passed on to the owner: then it is acknowledged."""


Rule = Callable[[Append], Awaitable[bool]]
"""Returns whether to go on; False ends the connection there."""


@dataclass
class LogProxy:
    """Relays to `target`. `appends` lists all that passed, in the order in which they arrived here."""

    target: tuple[str, int]
    port: int = 0
    appends: list[Append] = field(default_factory=list[Append])
    fenced: int = 0
    """Requests other than appends that were refused because of their epoch: runs of tools."""
    before: Rule | None = None
    """Called with each append before the store gets it."""
    after: Rule | None = None
    """Called with each append once the store has answered, before the owner learns of it."""

    def of(self, stream: str) -> list[Append]:
        """The appends of one stream that were tried."""
        return [a for a in self.appends if a.stream == stream]

    def owners(self, stream: str) -> dict[int, tuple[str, int]]:
        """Epoch -> shard and process id, as the owners of the stream have said themselves."""
        return {a.epoch: a.owner for a in self.of(stream) if a.owner is not None and a.outcome == "OK"}

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side ends it, or a rule does."""
        try:
            store_reader, store = await asyncio.open_connection(*self.target)
        except OSError:
            writer.close()
            return
        pending: list[Append] = []
        pumps = [
            asyncio.ensure_future(self._requests(reader, store, pending)),
            asyncio.ensure_future(self._replies(store_reader, writer, pending)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Closed before the next await: this task may be cancelled once more there.
            writer.close()
            store.close()
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _requests(self, reader: asyncio.StreamReader, store: asyncio.StreamWriter, pending: list[Append]) -> None:
        while True:
            raw, words = await _command(reader)
            append = _append_of(words)
            if append is not None:
                self.appends.append(append)
                if self.before is not None and not await self.before(append):
                    return
                pending.append(append)
            store.write(raw)
            await store.drain()

    async def _replies(self, store: asyncio.StreamReader, writer: asyncio.StreamWriter, pending: list[Append]) -> None:
        while data := await store.read(65_536):
            # A client asks for one append at a time on a connection, so what comes next is its reply.
            append = pending.pop(0) if pending else None
            if append is None and b"\r\nFENCED\r\n" in data:
                self.fenced += 1
            if append is not None:
                found = _WORD.search(data)
                append.outcome = found.group(1).decode() if found else data[:20].decode(errors="replace")
                if self.after is not None and not await self.after(append):
                    return
                append.is_delivered = True
            writer.write(data)
            await writer.drain()


async def _command(reader: asyncio.StreamReader) -> tuple[bytes, list[bytes]]:
    head = await reader.readuntil(b"\r\n")
    raw, words = [head], list[bytes]()
    for _ in range(int(head[1:])):
        size = await reader.readuntil(b"\r\n")
        word = await reader.readexactly(int(size[1:]) + 2)
        raw += [size, word]
        words.append(word[:-2])
    return b"".join(raw), words


def _append_of(words: list[bytes]) -> Append | None:
    if words[0] not in (b"EVALSHA", b"EVAL"):
        return None
    keys = int(words[2])
    named = _LOG_KEY.fullmatch(words[3]) if keys > 2 else None
    arguments = words[3 + keys :]
    if named is None or len(arguments) < 10 or arguments[0] != named.group(1):
        return None
    owner = next((m for word in arguments if (m := _OWNER.search(word)) is not None), None)
    return Append(
        stream=arguments[0].decode(),
        command_id=arguments[1].decode(),
        epoch=int(arguments[2]),
        types=tuple(w.decode() for w in arguments[5:] if _TYPE.fullmatch(w)),
        last_hash=arguments[-1].decode(),
        owner=(owner.group(1).decode(), int(owner.group(2))) if owner else None,
    )


@contextmanager
def proxied_log(url: str) -> Iterator[tuple[LogProxy, str]]:
    """A proxy in front of the log store at `url`, and the URL through it, until the block ends."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    proxy = LogProxy((parts.hostname, parts.port))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="log proxy")
    thread.start()
    server = asyncio.run_coroutine_threadsafe(_serve(proxy), loop).result(10)
    try:
        place = parts.netloc.replace(f"{parts.hostname}:{parts.port}", f"127.0.0.1:{proxy.port}")
        yield proxy, parts._replace(netloc=place).geturl()
    finally:
        asyncio.run_coroutine_threadsafe(_close(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _serve(proxy: LogProxy) -> asyncio.Server:
    relays: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relay = asyncio.ensure_future(proxy.relay(reader, writer))
        relays.add(relay)
        relay.add_done_callback(relays.discard)
        # A relay that is cancelled before it begins closes nothing itself.
        relay.add_done_callback(lambda _: writer.close())

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    return server


async def _close(server: asyncio.Server) -> None:
    server.close()
    # Clients that are still alive connect again as soon as they are cut off: what was accepted meanwhile ends as well.
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        # Transports let go of their sockets in the next round of the loop.
        await asyncio.sleep(0)
