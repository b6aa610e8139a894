"""Many clients of one replica's event stream, against a bare Serve application that streams the same bytes.

Every client's versions are checked: in order, none missing, none twice, also of those that lost their line on the way.
"""

from __future__ import annotations

import asyncio
import json
import resource
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.figures import Figure, percentile
from benchmarks.stores import append_one, log_store, question

if TYPE_CHECKING:
    from fleet.wiring.endpoints import Endpoints


CLIENTS, BURST, SINGLE = 500, 30, 8
"""Clients at once; events that are appended as fast as the log takes them; events that are waited for one by one."""
CUT_EVERY = 5
"""Each client of this number loses its line once, in the middle of the burst, and comes again."""
STORY, TOKEN = "st-bench", "token-of-the-benchmark"
WITHIN_S = 300.0
_OPEN_FILES = 4096


@dataclass
class Watcher:
    """One client: a plain socket, so that what is measured is the server.

    Args:
        cut_at: the version after which it loses its line and comes again.
    """

    port: int
    path: str
    token: str = TOKEN
    cut_at: int | None = None
    versions: list[int] = field(default_factory=list[int])
    arrived_s: dict[int, float] = field(default_factory=dict[int, float])
    connected: asyncio.Event = field(default_factory=asyncio.Event)
    _moved: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Follows the stream until it is cancelled."""
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
            try:
                writer.write(self._request())
                await self._read(reader)
            finally:
                writer.close()

    def _request(self) -> bytes:
        resume = f"Last-Event-ID: {self.versions[-1]}\r\n" if self.versions else ""
        head = f"GET {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nAuthorization: Bearer {self.token}\r\n"
        return f"{head}{resume}\r\n".encode()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Returns when this client drops its line; the server ends none."""
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n", 1)[0]:
            told = await reader.read(2000)
            raise AssertionError(f"{head.decode(errors='replace')}{told.decode(errors='replace')}")
        rest = b""
        while size := int((await reader.readline()).strip() or b"0", 16):
            rest += await reader.readexactly(size)
            await reader.readexactly(2)
            # The head is sent before the server listens for events, the first frame after it.
            self.connected.set()
            *frames, rest = rest.split(b"\n\n")
            for frame in frames:
                self._took(frame)
            if self.cut_at is not None and self.versions and self.versions[-1] >= self.cut_at:
                self.cut_at = None
                return
        raise AssertionError("the server ended the stream")

    def _took(self, frame: bytes) -> None:
        for line in frame.split(b"\n"):
            if line.startswith(b"id: "):
                version = int(line.rpartition(b"/")[2])
                self.versions.append(version)
                self.arrived_s[version] = time.perf_counter()
                self._moved.set()

    async def has(self, version: int) -> None:
        """Returns once this version is here."""
        while not self.versions or self.versions[-1] < version:
            self._moved.clear()
            await self._moved.wait()


@dataclass(frozen=True, slots=True)
class Watched:
    """What all clients together saw."""

    burst_s: float
    """From the first append until the last client had everything."""
    delays_s: Sequence[float]
    """Of each single event to each client."""
    cuts: int


Push = Callable[[int], Awaitable[None]]


async def watch_all(watchers: Sequence[Watcher], push: Push, *, first: int, burst: int, single: int) -> Watched:
    """Every watcher saw every version from `first` on, once and in order; AssertionError otherwise.

    Args:
        push: the event of this version is there when it returns.
        first: version of the first event that is pushed; the ones before are there already.
    """
    cuts = sum(one.cut_at is not None for one in watchers)
    running = [asyncio.create_task(one.run()) for one in watchers]
    try:
        async with asyncio.timeout(WITHIN_S):
            await _all(running, [one.connected.wait() for one in watchers])
            started = time.perf_counter()
            for version in range(first, first + burst):
                await push(version)
            await _all(running, [one.has(first + burst - 1) for one in watchers])
            burst_s = time.perf_counter() - started
            delays = [await _single(running, watchers, push, first + burst + n) for n in range(single)]
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    wanted = list(range(1, first + burst + single))
    wrong = [one.versions for one in watchers if one.versions != wanted]
    assert not wrong, f"{len(wrong)} of {len(watchers)} clients saw something else, the first of them {wrong[0]}"
    return Watched(burst_s, [delay for one in delays for delay in one], cuts)


async def _all(running: Sequence[asyncio.Task[None]], waits: Sequence[Awaitable[Any]]) -> None:
    """All of `waits` came true; what ended a client is raised at once."""
    together = asyncio.gather(*waits)
    await asyncio.wait([together, *running], return_when=asyncio.FIRST_COMPLETED)
    if together.done():
        await together
        return
    together.cancel()
    for task in running:
        if task.done():
            task.result()


async def _single(
    running: Sequence[asyncio.Task[None]], watchers: Sequence[Watcher], push: Push, version: int
) -> list[float]:
    sent = time.perf_counter()
    await push(version)
    await _all(running, [one.has(version) for one in watchers])
    return [one.arrived_s[version] - sent for one in watchers]


async def measure(folder: Path) -> list[Figure]:
    """Events delivered per second to 500 clients at once, and the delay of a single event; ours over bare Serve."""
    from cluster.local.ray_head import RayHead

    _raise_open_files()
    head = RayHead(folder / "ray", dashboard=False, cpus=2, store_mb=80)
    head.start()
    try:
        async with log_store(folder) as url:
            return await _measured(url, folder)
    finally:
        head.stop()


def _raise_open_files() -> None:
    """Five hundred clients here, and as many lines in the proxy, which inherits this."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


async def _measured(url: str, folder: Path) -> list[Figure]:
    from ray import serve
    from ray.serve.config import HTTPOptions

    from cluster.local.process import free_port
    from fleet.events.envelope import Head
    from fleet.kernel.ids import StoryId, StreamId
    from fleet.log.redis.connection import connect_redis
    from fleet.log.redis.log import RedisEventLog

    port = free_port()
    await asyncio.to_thread(serve.start, http_options=HTTPOptions(host="127.0.0.1", port=port))
    for name, app in (("gateway", _gateway(_endpoints(url, folder))), ("bare", _bare())):
        await asyncio.to_thread(serve.run, app, name=name, route_prefix="/" if name == "gateway" else "/bare")
    client = connect_redis(url)
    log, stream = RedisEventLog(client), StreamId.of_story(StoryId(STORY))
    head = await append_one(log, stream, Head(), question(0), ts_ms=0)

    async def append(version: int) -> None:
        nonlocal head
        head = await append_one(log, stream, head, question(version - 1), ts_ms=version)

    async def tell(version: int) -> None:
        await _told(port, "/bare/push", {"version": version})

    def watchers(path: str) -> list[Watcher]:
        cut = range(CUT_EVERY - 1, CLIENTS, CUT_EVERY) if path.startswith("/api") else ()
        return [Watcher(port, path, cut_at=BURST // 2 if n in cut else None) for n in range(CLIENTS)]

    try:
        # The bare one has kept no event, so a client that comes again would find nothing to go on from.
        bare = await watch_all(watchers("/bare/"), tell, first=1, burst=BURST, single=SINGLE)
        path = f"/api/events/stream?storyId={STORY}"
        ours = await watch_all(watchers(path), append, first=2, burst=BURST, single=SINGLE)
    finally:
        await client.aclose()
        await asyncio.to_thread(serve.shutdown)
    return _figures(ours, bare)


def _figures(ours: Watched, bare: Watched) -> list[Figure]:
    total, many = CLIENTS * BURST, f"{CLIENTS} clients"
    late = [percentile(one.delays_s, 99) * 1e3 for one in (ours, bare)]
    usual = [statistics.median(one.delays_s) * 1e3 for one in (ours, bare)]
    return [
        Figure(
            f"SSE, {CLIENTS} clients, one replica", total / ours.burst_s, "events/s", "bare Serve", total / bare.burst_s
        ),
        Figure(f"SSE, one event to {CLIENTS} clients, p50", usual[0], "ms", "bare Serve", usual[1]),
        Figure(f"SSE, one event to {many}, p99", late[0], "ms", "bare Serve", late[1]),
        Figure("SSE, clients that lost a line and missed nothing", ours.cuts, "clients", note="order checked in all"),
    ]


async def _told(port: int, path: str, body: Any) -> None:
    """One POST that the bare application answers."""
    raw = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(raw)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + raw)
    answer = await reader.read()
    writer.close()
    assert b" 200 " in answer.split(b"\r\n", 1)[0], answer.decode(errors="replace")


def _endpoints(url: str, folder: Path) -> Endpoints:
    from fleet.wiring.endpoints import Endpoints

    return Endpoints(
        home=str(folder),
        config=None,
        redis_url=url,
        cache_url=url,
        neo4j_uri="bolt://127.0.0.1:1",
        neo4j_user="",
        neo4j_password="",
        neo4j_database="neo4j",
        node="local",
        pools={},
        council_shards=1,
        lease_ttl_s=15,
        sweep_s=5,
        record_dir=None,
        code_digest="",
        environ={},
    )


_OPTIONS: dict[str, Any] = {
    "num_replicas": 1,
    "max_ongoing_requests": 2 * CLIENTS,
    "graceful_shutdown_timeout_s": 0,
    "ray_actor_options": {"num_cpus": 0},
}


def _gateway(endpoints: Endpoints) -> Any:
    """The gateway as it ships, over a log of its own; the caps of one principal are left out."""
    from ray import serve

    def build() -> Any:
        from fleet.config.settings import ServeSettings
        from fleet.desk.principals import PrincipalEntry, PrincipalRegistry, hash_token
        from fleet.kernel.ids import Principal
        from fleet.wiring.desk.desk import make_desk
        from serve_apps.routes.gateway import build_gateway

        entry = PrincipalEntry(
            principal=Principal("user:bench"), roles=frozenset({"po"}), token_sha256=hash_token(TOKEN)
        )
        settings = endpoints.files.load("serve.yaml", ServeSettings)
        return build_gateway(make_desk(endpoints), PrincipalRegistry((entry,)), settings)

    @serve.deployment(name="gateway", **_OPTIONS)
    @serve.ingress(build)
    class Gateway:
        """The events of a story."""

    return Gateway.bind()


def _bare() -> Any:
    """The least that can be streamed: what was pushed goes to every open line, as it is."""
    from ray import serve

    @serve.deployment(name="bare", **_OPTIONS)
    class Bare:
        def __init__(self) -> None:
            self.lines: set[Any] = set()

        async def __call__(self, request: Any) -> Any:
            from starlette.responses import PlainTextResponse, StreamingResponse

            if request.method == "POST":
                version = (await request.json())["version"]
                for line in self.lines:
                    line.put_nowait(f"id: story:{STORY}/{version}\nevent: story\ndata: {'x' * 600}\n\n")
                return PlainTextResponse("told")
            return StreamingResponse(self._frames(), media_type="text/event-stream")

        async def _frames(self) -> AsyncIterator[str]:
            line: asyncio.Queue[str] = asyncio.Queue()
            self.lines.add(line)
            try:
                yield "retry: 3000\n\n"
                while True:
                    yield await line.get()
            finally:
                self.lines.discard(line)

    return Bare.bind()
