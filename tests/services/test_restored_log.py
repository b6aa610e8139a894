"""A log store that was copied while it worked, restored into another as the page of operations says, and its graph."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis
from typer.testing import CliRunner

from cluster.local.identity import ProcessIdentity
from cluster.local.record import Addresses, RunningFleet, save_fleet
from cluster.local.valkey import StoreKind, Valkey
from fleet.cli.app import app
from fleet.events.codec import decode
from fleet.graph.port import DecisionGraph
from fleet.graph.service.projector import Projector
from fleet.kernel.clock import SystemClock
from fleet.log.redis.connection import connect_redis
from fleet.log.redis.dead_letters import RedisDeadLetters
from fleet.log.redis.feed import RedisFeedGroup
from fleet.log.redis.log import RedisEventLog
from tests.support.graphs import empty_graph, open_graph, sample_history
from tests.support.operations import as_written, blocks_of
from tests.support.projection import append, running
from tests.support.services import Neo4jAddress
from tests.support.stores import eventually

_COPY, _RESTORE = "redis-cli -h log.example -p 6379 --rdb log-backup.rdb", "appendonlydir"


class _Store(NamedTuple):
    server: Valkey
    client: Redis


@asynccontextmanager
async def _log_store(folder: Path) -> AsyncGenerator[_Store]:
    """A log store whose data lie in this folder."""
    server = Valkey(StoreKind.LOG, folder)
    await server.start()
    client = connect_redis(server.url)
    try:
        yield _Store(server, client)
    finally:
        await client.aclose()
        await server.stop()


def _copied(server: Valkey, to: Path) -> None:
    """What `redis-cli --rdb` does: ask as a replica would, and keep what the store sends first."""
    found = urlsplit(server.url)
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as line, to.open("wb") as copy:
        answers = line.makefile("rb")
        for words in (("AUTH", found.password or ""), ("REPLCONF", "rdb-only", "1")):
            line.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w.encode()) for w in words))
            assert answers.readline() == b"+OK\r\n"
        line.sendall(b"SYNC\r\n")
        while (head := answers.readline()) == b"\n":
            pass
        assert head.startswith(b"$"), head
        assert copy.write(answers.read(int(head[1:]))) == int(head[1:]) > 0
        answers.close()


async def _filled(log: RedisEventLog) -> int:
    """Events of every kind of stream are on record; how many."""
    events = [event for kind in ("project", "platform", "story") for event in sample_history(kind)]
    for event in events:
        await append(log, event.stream, decode(event))
    return len(events)


def _projector(redis: Redis, graph: DecisionGraph) -> Projector:
    feed, letters = RedisFeedGroup(redis, block_s=0.1), RedisDeadLetters(redis, redis)
    return Projector(RedisEventLog(redis), graph, feed=feed, letters=letters, clock=SystemClock(), poll_s=0.1)


def _running_at(home: Path, url: str, graph: Neo4jAddress) -> dict[str, str | None]:
    """Variables of commands on a fleet of this home, which has these stores."""
    addresses = Addresses(
        redis_url=url,
        cache_url=url,
        neo4j_uri=graph.uri,
        neo4j_user=graph.user,
        neo4j_password=graph.password,
        neo4j_database="neo4j",
    )
    me = ProcessIdentity.of_self()
    save_fleet(RunningFleet(home=home, supervisor=me, started_at_ms=time.time_ns() // 10**6, addresses=addresses))
    return {"FLEET_HOME": str(home), "FLEET_CONFIG": None, "NO_COLOR": "1", "TERM": "dumb"}


async def _whole(projector: Projector, events: int) -> None:
    async def holds() -> bool:
        status = await projector.status()
        return (status.events, status.lag_total) == (events, 0)

    await eventually(holds, within_s=60)


@pytest.mark.rule("GR-7", "GR-9")
async def test_graph_that_is_rebuilt_from_a_restored_log_equals_the_one_that_was_lost(
    tmp_path_factory: pytest.TempPathFactory, neo4j_address: Neo4jAddress
) -> None:
    home = tmp_path_factory.mktemp("o")
    assert any(_COPY in block for block in blocks_of("Back up"))
    (restore,) = [block for block in blocks_of("Restore") if _RESTORE in block]
    empty_graph(neo4j_address)
    async with _log_store(home / "first") as store, open_graph(neo4j_address) as graph:
        log = RedisEventLog(store.client)
        events = await _filled(log)
        await _projector(store.client, graph).sweep()
        lost = await graph.digest()
        await asyncio.to_thread(_copied, store.server, home / "log-backup.rdb")
        # What comes after the copy is not in it.
        later = sample_history("story", "later")[0]
        await append(log, later.stream, decode(later))
        await _projector(store.client, graph).sweep()
        assert await graph.digest() != lost
    empty_graph(neo4j_address)

    second = home / "second"
    second.mkdir(mode=0o700)
    (home / "log-backup.rdb").rename(second / "log-backup.rdb")
    await asyncio.to_thread(as_written, restore, second, {})
    async with _log_store(second) as store, open_graph(neo4j_address) as graph:
        assert await graph.digest() != lost
        projector = _projector(store.client, graph)
        environ = _running_at(home, store.server.url, neo4j_address)
        async with running(projector):
            await _whole(projector, events)
            found = await asyncio.to_thread(CliRunner().invoke, app, ["graph", "rebuild"], env=environ)
        assert found.exit_code == 0, found.stderr
        assert "projection 2 is active; it equals the one before it" in found.stdout
        assert await graph.digest() == lost
