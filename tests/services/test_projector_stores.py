"""Projectors over the embedded stores: Redis for log, hints and letters, and the Bolt server for the graph."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from redis.asyncio import Redis

from fleet.events.codec import encode
from fleet.events.envelope import NewEvent
from fleet.graph.changes import Cursor
from fleet.graph.memory.graph import MemoryGraph
from fleet.graph.neo4j.graph import Neo4jGraph
from fleet.graph.port import DecisionGraph
from fleet.graph.projection import Comparison, Spare
from fleet.graph.service.projector import Projector
from fleet.kernel.clock import SystemClock
from fleet.kernel.ids import StreamId
from fleet.log.port import MAX_ATTEMPTS
from fleet.log.redis.dead_letters import RedisDeadLetters
from fleet.log.redis.feed import RedisFeedGroup
from fleet.log.redis.log import RedisEventLog
from tests.support.graphs import empty_graph
from tests.support.projection import CREATED, MOVED, append, running
from tests.support.services import Neo4jAddress
from tests.support.stores import empty_database, eventually, own_database

STREAMS = [StreamId(f"story:st-s{n}") for n in range(8)]
NEWER = NewEvent(type="StoryCreated", schema=99, body=encode(CREATED).body)


@pytest.fixture
async def redis(redis_url: str) -> AsyncGenerator[Redis]:
    async with empty_database(own_database(redis_url, 8)) as client:
        yield client


@pytest.fixture
async def graph(neo4j_address: Neo4jAddress) -> AsyncGenerator[Neo4jGraph]:
    empty_graph(neo4j_address)
    found = connected(neo4j_address)
    try:
        yield found
    finally:
        await found.close()


def connected(address: Neo4jAddress) -> Neo4jGraph:
    return Neo4jGraph.connect(address.uri, user=address.user, password=address.password, database="neo4j")


def projector(redis: Redis, graph: DecisionGraph, *, consumer: str = "one", sweep_s: float = 30.0) -> Projector:
    """A new process over the same stores."""
    return Projector(
        RedisEventLog(redis),
        graph,
        feed=RedisFeedGroup(redis, block_s=0.1),
        letters=RedisDeadLetters(redis, redis),
        clock=SystemClock(),
        consumer=consumer,
        poll_s=0.1,
        sweep_s=sweep_s,
    )


async def from_nothing(redis: Redis) -> str:
    """Digest of a graph that was projected from the whole log at once."""
    twin = MemoryGraph()
    await projector(redis, twin).sweep()
    return await twin.digest()


@pytest.mark.rule("EV-7", "EV-20", "GR-4")
async def test_three_projectors_share_the_hints_and_write_everything_once(
    redis: Redis, graph: Neo4jGraph, neo4j_address: Neo4jAddress
) -> None:
    log, others = RedisEventLog(redis), [connected(neo4j_address) for _ in range(2)]
    workers = [projector(redis, one, consumer=f"p{n}") for n, one in enumerate([graph, *others])]
    try:
        async with running(*workers):
            for _ in range(3):
                for stream in STREAMS:
                    await append(log, stream, CREATED, MOVED)
            assert await eventually(lambda: is_caught_up(workers[0]), within_s=60)
        assert await graph.digest() == await from_nothing(redis)
        assert (await workers[0].status()).set_aside == {}
    finally:
        for one in others:
            await one.close()


async def is_caught_up(worker: Projector) -> bool:
    return set((await worker.lag()).values()) == {0}


@pytest.mark.rule("EV-22", "EV-30")
async def test_poisoned_event_is_parked_once_across_restarts_and_others_go_on(redis: Redis, graph: Neo4jGraph) -> None:
    log = RedisEventLog(redis)
    await append(log, STREAMS[0], CREATED, NEWER, MOVED)
    for _ in range(MAX_ATTEMPTS + 2):
        await projector(redis, graph).sweep()
    await append(log, STREAMS[1], CREATED)
    again = projector(redis, graph)
    async with running(again):
        assert await eventually(lambda: reached(graph, STREAMS[1], 1), within_s=60)
    (letter,) = await RedisDeadLetters(redis, redis).letters()
    assert (letter.failure.code, letter.failure.version, letter.attempts) == ("unsupported_schema", 2, MAX_ATTEMPTS)
    assert await again.lag() == {str(STREAMS[0]): 2, str(STREAMS[1]): 0}


async def reached(graph: DecisionGraph, stream: StreamId, version: int) -> bool:
    return (await graph.cursor(stream)).version == version


@pytest.mark.rule("GR-6", "GR-7", "EV-19")
async def test_accepted_loss_of_the_log_is_rebuilt_while_the_projector_runs(redis: Redis, graph: Neo4jGraph) -> None:
    log, lost = RedisEventLog(redis), STREAMS[2]
    await append(log, lost, CREATED)
    await append(log, STREAMS[3], CREATED)
    worker = projector(redis, graph, sweep_s=0.5)
    await worker.sweep()
    ahead = Cursor(5, "a" * 64)
    assert await graph.apply(lost, [], expected=await graph.cursor(lost), reached=ahead)
    async with running(worker):
        assert await eventually(worker.set_aside, within_s=60)
        assert list(await worker.set_aside()) == list(await log.refused()) == [lost]
        await log.accept_loss(lost)
        assert await eventually(lambda: is_rebuilt(graph), within_s=60)
        await append(log, lost, MOVED)
        assert await eventually(lambda: reached(graph, lost, 2), within_s=60)
    assert (await graph.projection()).comparison is Comparison.IMPOSSIBLE
    assert await worker.set_aside() == {}
    assert await log.refused() == {}
    assert await graph.digest() == await from_nothing(redis)


async def is_rebuilt(graph: DecisionGraph) -> bool:
    state = await graph.projection()
    return state.active == 2 and state.spare is Spare.EMPTY


@pytest.mark.rule("GR-7", "GL-20")
async def test_rebuild_under_load_by_two_projectors_equals_the_log(
    redis: Redis, graph: Neo4jGraph, neo4j_address: Neo4jAddress
) -> None:
    log, other = RedisEventLog(redis), connected(neo4j_address)
    workers = [projector(redis, one, consumer=f"p{n}") for n, one in enumerate([graph, other])]
    try:
        async with running(*workers):
            for stream in STREAMS:
                await append(log, stream, CREATED, *[MOVED] * 20)
            await workers[0].ask_for_rebuild()
            for n in range(20):
                await append(log, STREAMS[n % 4], MOVED)
                await asyncio.sleep(0)
            assert await eventually(lambda: is_rebuilt(graph), within_s=60)
            assert await eventually(lambda: is_caught_up(workers[1]), within_s=60)
        assert await graph.digest() == await from_nothing(redis)
        assert (await graph.projection()).comparison is not Comparison.DIFFERENT
    finally:
        await other.close()


async def test_graph_that_was_emptied_under_a_running_projector_is_filled_again(
    redis: Redis, graph: Neo4jGraph, neo4j_address: Neo4jAddress
) -> None:
    await append(RedisEventLog(redis), STREAMS[4], CREATED, MOVED)
    worker = projector(redis, graph)
    await worker.sweep()
    empty_graph(neo4j_address)
    await worker.sweep()
    assert await graph.digest() == await from_nothing(redis)
