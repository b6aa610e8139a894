"""The way out of one run: a proxy that listens inside its sandbox and connects from here.

The first program inside opens 127.0.0.1:3128 there and hands the listening socket out over an inherited socket pair.
So nothing of the proxy runs inside, no socket file exists, and one listener is one run. There is no other way out.

Source: docs/design/sandbox.md, section 8.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from fleet.policy.runs.spec import EgressDecision
from fleet.sandbox.egress.rules import (
    HEAD_BYTES,
    STATUS_OF_REFUSAL,
    HostRules,
    ProxyRequest,
    RefusalReason,
    Refused,
    Target,
    choose_addresses,
    parse_head,
)

Resolver = Callable[[str], Awaitable[Sequence[str]]]
"""Host name -> numeric addresses; none when the name has no address."""

_LAUNCHER = ("/toolchain/bin/python", "-IS", "/fleet/inside/egress_launcher.py")
_CHUNK = 1 << 16
_MAX_DECISIONS = 1_000
_LINGER_S = 1.0


def system_resolver(*, max_parallel: int = 4) -> Resolver:
    """A lookup by the machine's own resolver, in threads of its own: a slow name server holds up nothing else."""
    threads = ThreadPoolExecutor(max_parallel, thread_name_prefix="egress-resolver")

    def look_up(host: str) -> list[str]:
        try:
            answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError:
            return []
        return [str(address[0]) for *_, address in answers]

    async def resolve(host: str) -> Sequence[str]:
        return await asyncio.get_running_loop().run_in_executor(threads, look_up, host)

    return resolve


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressSettings:
    """How the proxies of a backend behave; times in seconds."""

    resolve: Resolver
    allow_addresses: tuple[str, ...] = ()
    """Networks that may be reached although they are not public: the owner's own, or a test's."""
    header_s: float = 10
    """Until the whole head of a request must be there."""
    resolve_s: float = 5
    connect_s: float = 10
    idle_s: float = 120
    """Without a byte in either direction until a connection is closed."""
    max_connections: int = 64
    """At one time, per run."""


@dataclass(slots=True)
class _Entry:
    """A decision while its connection lives."""

    at_ms: int
    host: str = ""
    port: int = 0
    allowed: bool = False
    reason: str = ""
    address: str | None = None
    bytes_out: int = 0
    bytes_in: int = 0

    def decision(self) -> EgressDecision:
        return EgressDecision(
            host=self.host,
            port=self.port,
            allowed=self.allowed,
            reason=self.reason,
            address=self.address,
            bytes_out=self.bytes_out,
            bytes_in=self.bytes_in,
            at_ms=self.at_ms,
        )


class EgressGate:
    """What a launch needs for its way out, and what was asked of it. Made by `open_egress` alone.

    Attributes:
        inherited: the descriptor that has to be open inside under the same number.
        prefix: argv that has to run before the command.
        is_open: True once the listener inside was handed out.
    """

    def __init__(self, rules: HostRules, settings: EgressSettings, ours: socket.socket, theirs: int) -> None:
        self._rules, self._settings, self._ours = rules, settings, ours
        self._entries: deque[_Entry] = deque(maxlen=_MAX_DECISIONS)
        self._connections: set[asyncio.Task[None]] = set()
        self.inherited: tuple[int, ...] = (theirs,)
        self.prefix: tuple[str, ...] = (*_LAUNCHER, str(theirs))
        self.is_open = False

    @property
    def decisions(self) -> tuple[EgressDecision, ...]:
        """What was asked for and decided so far, in order; the last 1,000."""
        return tuple(entry.decision() for entry in self._entries)

    async def serve(self) -> None:
        """Take the listener from inside and serve on it until cancelled; returns when none comes."""
        listener = await self._listener()
        if listener is None:
            return
        with listener:
            self.is_open = True
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(self._ours, b"G")
            try:
                while True:
                    await self._accept(listener)
            finally:
                for task in self._connections:
                    task.cancel()
                await asyncio.gather(*self._connections, return_exceptions=True)

    async def _listener(self) -> socket.socket | None:
        await _readable(self._ours)
        try:
            _, descriptors, _, _ = socket.recv_fds(self._ours, 1, 4)
        except OSError:
            return None
        sockets = [socket.socket(fileno=d) for d in descriptors]
        if len(sockets) == 1 and _is_listener(sockets[0]):
            sockets[0].setblocking(False)
            return sockets[0]
        for one in sockets:
            one.close()
        return None

    async def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = await asyncio.get_running_loop().sock_accept(listener)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                await asyncio.sleep(0.1)
            return
        entry = _Entry(time.time_ns() // 1_000_000)
        self._entries.append(entry)
        if len(self._connections) >= self._settings.max_connections:
            entry.reason = "too_many_connections"
            with client, contextlib.suppress(OSError):
                client.send(_answer("too_many_connections"))
            return
        task = asyncio.create_task(self._connection(client, entry))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _connection(self, client: socket.socket, entry: _Entry) -> None:
        reader, writer = await asyncio.open_connection(sock=client, limit=HEAD_BYTES)
        try:
            await self._handle(reader, writer, entry)
        except Refused as refused:
            _note(entry, refused)
            await _refuse(reader, writer, refused.reason)
        except OSError:
            entry.reason = entry.reason or "malformed_request"
        finally:
            await _closed(writer)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, entry: _Entry) -> None:
        request = parse_head(await self._head(reader))
        target = request.target
        entry.host, entry.port = target.host, target.port
        self._rules.check(target)
        far_reader, far_writer = await self._connect(target, entry)
        entry.allowed, entry.reason = True, "ok"
        try:
            await self._relay(request, (reader, writer), (far_reader, far_writer), entry)
        finally:
            await _closed(far_writer)

    async def _head(self, reader: asyncio.StreamReader) -> bytes:
        try:
            async with asyncio.timeout(self._settings.header_s):
                return await reader.readuntil(b"\r\n\r\n")
        except TimeoutError as error:
            raise Refused("header_timeout") from error
        except asyncio.LimitOverrunError as error:
            raise Refused("header_too_large") from error
        except asyncio.IncompleteReadError as error:
            raise Refused("malformed_request") from error

    async def _connect(self, target: Target, entry: _Entry) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connected to a checked address: the name is looked up once, here, and never again."""
        if target.address is not None:
            answers: Sequence[str] = [str(target.address)]
        else:
            try:
                async with asyncio.timeout(self._settings.resolve_s):
                    answers = await self._settings.resolve(target.host)
            except TimeoutError:
                answers = []
        for address in choose_addresses(answers, target=target, allowed=self._settings.allow_addresses):
            entry.address = address
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(self._settings.connect_s):
                    return await asyncio.open_connection(address, target.port, flags=socket.AI_NUMERICHOST)
        raise Refused("connect_failed", host=target.host, port=target.port)

    async def _relay(
        self,
        request: ProxyRequest,
        near: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        far: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        entry: _Entry,
    ) -> None:
        loop = asyncio.get_running_loop()
        heard = loop.time()

        def sent(size: int) -> None:
            nonlocal heard
            heard = loop.time()
            entry.bytes_out += size

        def received(size: int) -> None:
            nonlocal heard
            heard = loop.time()
            entry.bytes_in += size

        if request.is_tunnel:
            near[1].write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            far[1].write(request.head)
            sent(len(request.head))
        outwards = asyncio.create_task(
            _pump(near[0], far[1], sent, max_bytes=None if request.is_tunnel else request.body_bytes)
        )
        inwards = asyncio.create_task(_pump(far[0], near[1], received))
        # A tunnel is over when both sides are, a plain request when its answer is.
        pending = {inwards, outwards} if request.is_tunnel else {inwards}
        try:
            while pending and (left := heard + self._settings.idle_s - loop.time()) > 0:
                done, pending = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if any(task.exception() for task in done):
                    break
        finally:
            outwards.cancel()
            inwards.cancel()
            await asyncio.gather(outwards, inwards, return_exceptions=True)


@contextlib.asynccontextmanager
async def open_egress(rules: HostRules, settings: EgressSettings) -> AsyncGenerator[EgressGate]:
    """A gate for one run; with the block every connection and descriptor of it ends."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    gate = EgressGate(rules, settings, ours, theirs.fileno())
    with ours, theirs:
        serving = asyncio.create_task(gate.serve())
        try:
            yield gate
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


async def _pump(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    moved: Callable[[int], None],
    *,
    max_bytes: int | None = None,
) -> None:
    """Everything that one side says, up to `max_bytes`, was passed on, and its end too."""
    left = max_bytes
    while left is None or left > 0:
        data = await reader.read(_CHUNK if left is None else min(_CHUNK, left))
        if not data:
            break
        moved(len(data))
        left = None if left is None else left - len(data)
        writer.write(data)
        await writer.drain()
    if max_bytes is None and writer.can_write_eof():
        writer.write_eof()


async def _readable(one: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(one, lambda: ready.done() or ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(one)


def _is_listener(one: socket.socket) -> bool:
    kind = (one.family, one.type)
    return kind == (socket.AF_INET, socket.SOCK_STREAM) and bool(
        one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    )


def _note(entry: _Entry, refused: Refused) -> None:
    entry.allowed, entry.reason = False, refused.reason
    entry.host, entry.port = refused.host or entry.host, refused.port or entry.port


def _answer(reason: RefusalReason) -> bytes:
    code, text = STATUS_OF_REFUSAL[reason]
    body = f"egress: {reason}\n"
    head = f"HTTP/1.1 {code} {text}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close"
    return f"{head}\r\n\r\n{body}".encode("ascii")


async def _refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reason: RefusalReason) -> None:
    """The client was told; what it still sends is thrown away, or its system would drop the answer."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            writer.write(_answer(reason))
            await writer.drain()
            writer.write_eof()
            while await reader.read(_CHUNK):
                pass


async def _closed(writer: asyncio.StreamWriter) -> None:
    """The connection is closed; what was written is sent first, for as long as that takes no time."""
    try:
        writer.close()
        async with asyncio.timeout(_LINGER_S):
            await writer.wait_closed()
    except (OSError, TimeoutError):
        pass
    finally:
        writer.transport.abort()
