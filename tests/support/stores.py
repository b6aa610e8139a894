"""The stores of one test: in memory, or in an empty database of a Redis server."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import TypeVar
from urllib.parse import urlsplit

from redis.asyncio import Redis

from fleet.context.memory import MemoryBundleStore
from fleet.context.port import BundleStore
from fleet.context.redis import RedisBundleStore
from fleet.events.envelope import Head, NewEvent
from fleet.kernel.ids import CommandId, Principal, StreamId
from fleet.log.memory import (
    MemoryDeadLetters,
    MemoryEventLog,
    MemoryFeed,
    MemoryFeedGroup,
    MemoryInbox,
    MemoryLeaseStore,
    MemorySnapshotStore,
)
from fleet.log.port import (
    AppendRequest,
    Command,
    DeadLetters,
    EventLog,
    Feed,
    FeedGroup,
    Inbox,
    LeaseStore,
    SnapshotStore,
)
from fleet.log.redis.connection import connect_redis
from fleet.log.redis.dead_letters import RedisDeadLetters
from fleet.log.redis.feed import RedisFeed, RedisFeedGroup
from fleet.log.redis.inbox import RedisInbox
from fleet.log.redis.lease import RedisLeaseStore
from fleet.log.redis.log import RedisEventLog
from fleet.log.redis.snapshots import RedisSnapshotStore
from fleet.notifications.memory import MemoryNotificationBook
from fleet.notifications.port import NotificationBook
from fleet.notifications.redis import RedisNotificationBook
from fleet.owner.spending.memory import MemoryDaySpending
from fleet.owner.spending.port import DaySpending
from fleet.owner.spending.redis import RedisDaySpending
from fleet.sandbox.memory import MemoryRunLedger, MemoryRunLogs
from fleet.sandbox.port import RunLedger, RunLogs
from fleet.sandbox.redis import RedisRunLedger, RedisRunLogs
from fleet.secrets.memory import MemoryAccessTrail
from fleet.secrets.port import AccessTrail
from fleet.secrets.redis import RedisAccessTrail
from fleet.tools.memory import MemoryToolSessions
from fleet.tools.port import ToolSessions
from fleet.tools.redis import RedisToolSessions

T = TypeVar("T")


ACTOR = Principal("system:council")
_NUMBERS = count(1)
SNAPSHOT_BYTES = 1000
"""Largest snapshot that the stores of a test keep."""


@dataclass(frozen=True)
class Stores:
    """One server's worth of stores. `twin` opens them again, as another process would."""

    log: EventLog
    leases: LeaseStore
    feed: Feed
    inbox: Inbox
    hasty_inbox: Inbox
    """Takes over what was left for 0.1 s."""
    group: FeedGroup
    hasty_group: FeedGroup
    """Takes over what was left for 0.1 s."""
    letters: DeadLetters
    """Lists what `hasty_inbox` sets aside, too."""
    ledger: RunLedger
    run_logs: RunLogs
    """Keeps about 20,000 lines of a run."""
    trail: AccessTrail
    snapshots: SnapshotStore
    """Keeps at most `SNAPSHOT_BYTES`."""
    sessions: ToolSessions
    bundles: BundleStore
    spending: DaySpending
    notices: NotificationBook
    twin: Callable[[], Stores]


def own_database(url: str, number: int = 9) -> str:
    """The same server's database `number`, which the suites of the stores empty before each test."""
    return urlsplit(url)._replace(path=f"/{number}").geturl()


@asynccontextmanager
async def empty_database(url: str) -> AsyncGenerator[Redis]:
    """A client of the database, emptied first and closed at the end."""
    client = connect_redis(url)
    try:
        await client.flushdb()
        yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def open_stores(url: str | None) -> AsyncGenerator[Stores]:
    """All stores, empty: in memory when there is no URL."""
    if url is None:
        yield _in_memory()
        return
    clients: list[Redis] = []

    def connect() -> Stores:
        clients.append(connect_redis(url))
        return _in_redis(clients[-1], connect)

    async with empty_database(url):
        try:
            yield connect()
        finally:
            for client in clients:
                await client.aclose()


def _in_memory() -> Stores:
    log = MemoryEventLog()
    hasty_inbox = MemoryInbox(abandoned_after_s=0.1)
    stores = Stores(
        log=log,
        leases=MemoryLeaseStore(log),
        feed=MemoryFeed(log),
        inbox=MemoryInbox(),
        hasty_inbox=hasty_inbox,
        group=MemoryFeedGroup(log),
        hasty_group=MemoryFeedGroup(log, abandoned_after_s=0.1),
        letters=MemoryDeadLetters(inbox=hasty_inbox),
        ledger=MemoryRunLedger(),
        run_logs=MemoryRunLogs(),
        trail=MemoryAccessTrail(),
        snapshots=MemorySnapshotStore(log, max_bytes=SNAPSHOT_BYTES),
        sessions=MemoryToolSessions(),
        bundles=MemoryBundleStore(),
        spending=MemoryDaySpending(),
        notices=MemoryNotificationBook(),
        twin=lambda: stores,
    )
    return stores


def _in_redis(client: Redis, twin: Callable[[], Stores]) -> Stores:
    return Stores(
        log=RedisEventLog(client, margin_s=2),
        leases=RedisLeaseStore(client),
        feed=RedisFeed(client),
        inbox=RedisInbox(client, client),
        hasty_inbox=RedisInbox(client, client, abandoned_after_s=0.1, block_s=0.05),
        group=RedisFeedGroup(client),
        hasty_group=RedisFeedGroup(client, abandoned_after_s=0.1, block_s=0.05),
        letters=RedisDeadLetters(client, client, margin_s=2),
        ledger=RedisRunLedger(client, margin_s=2),
        run_logs=RedisRunLogs(client, block_s=0.2),
        trail=RedisAccessTrail(client, margin_s=2),
        snapshots=RedisSnapshotStore(client, max_bytes=SNAPSHOT_BYTES),
        sessions=RedisToolSessions(client, margin_s=2),
        bundles=RedisBundleStore(client, margin_s=2),
        spending=RedisDaySpending(client, margin_s=2),
        notices=RedisNotificationBook(client, margin_s=2),
        twin=twin,
    )


def new_stream(name: str = "st-one") -> StreamId:
    """A stream of a story that no other test uses."""
    return StreamId(f"story:{name}-{next(_NUMBERS)}")


def append_request(
    stream: StreamId,
    expected: Head | None = None,
    *,
    bodies: Sequence[bytes] = (b"{}",),
    command_id: str = "",
    closes: bool = False,
) -> AppendRequest:
    """An append of one event for each body, under a new command id unless one is given."""
    return AppendRequest(
        stream=stream,
        events=[NewEvent(type="MilestoneReached", schema=1, body=body, causation="because") for body in bodies],
        expected=expected or Head(),
        command_id=CommandId(command_id or f"{stream.entity}/step-{next(_NUMBERS)}/finish"),
        actor=ACTOR,
        ts_ms=1_700_000_000_000,
        closes=closes,
    )


def command(stream: StreamId, *, name: str = "score_story") -> Command:
    """A new command for the owner of the stream."""
    return Command(
        command_id=CommandId(f"user:ada/{next(_NUMBERS)}"),
        stream=stream,
        name=name,
        principal=Principal("user:ada"),
        body={"title": "Zürich", "points": 3},
    )


async def eventually(look: Callable[[], T | Awaitable[T]], *, within_s: float) -> T:
    """What `look` returns as soon as it is true; the last answer, or the last error, when the time is over."""
    deadline = time.monotonic() + within_s
    while True:
        found = look()
        value = await found if inspect.isawaitable(found) else found
        if value or time.monotonic() >= deadline:
            return value
        await asyncio.sleep(0.02)
