"""F17: one event among a hundred stories cannot be projected. It alone is set aside, after exactly five attempts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from redis.asyncio import Redis

from fleet.graph.changes import Cursor
from fleet.graph.memory.graph import MemoryGraph
from fleet.graph.port import DecisionGraph
from fleet.kernel.errors import StoreUnavailable
from fleet.kernel.ids import StreamId
from fleet.log.port import MAX_ATTEMPTS
from fleet.log.redis.dead_letters import RedisDeadLetters
from fleet.log.redis.feed import RedisFeedGroup
from fleet.log.redis.log import RedisEventLog
from tests.support.chaos_projection import WatchedGraph, projector, running
from tests.support.chaos_stories import StoryWriter
from tests.support.graphs import empty_graph, open_graph
from tests.support.oracle import check
from tests.support.services import Neo4jAddress
from tests.support.stores import empty_database, eventually, own_database

pytestmark = pytest.mark.timeout(600)

STORIES = 100
POISONED = 4
"""The version that nobody can project."""


@pytest.fixture
async def log_client(redis_url: str) -> AsyncGenerator[Redis]:
    async with empty_database(own_database(redis_url)) as client:
        yield client


@pytest.fixture(params=["memory", pytest.param("bolt", marks=pytest.mark.slow)])
def address(request: pytest.FixtureRequest) -> Neo4jAddress | None:
    return request.getfixturevalue("neo4j_address") if request.param == "bolt" else None


@pytest.fixture
async def inner(address: Neo4jAddress | None) -> AsyncGenerator[DecisionGraph]:
    if address is not None:
        empty_graph(address)
    async with open_graph(address) as graph:
        yield graph


@pytest.mark.rule("EV-22", "GR-6")
async def test_poisoned_event_parks_its_story_alone_and_loses_nothing(log_client: Redis, inner: DecisionGraph) -> None:
    log, letters = RedisEventLog(log_client), RedisDeadLetters(log_client, log_client)
    writers = [StoryWriter(log, body_chars=10) for _ in range(STORIES)]
    for _ in range(4):
        await asyncio.gather(*(writer.write(events=2) for writer in writers))
    sick, attempts, is_broken = writers[37].stream, 0, True

    async def handler(stream: StreamId, expected: Cursor, reached: Cursor) -> None:
        nonlocal attempts
        if is_broken and stream == sick and expected.version < POISONED <= reached.version:
            attempts += reached.version == expected.version + 1
            raise ValueError("this handler has a bug")

    graph = WatchedGraph(inner, fault=handler)

    # Each sweep is another life of the projector: the count outlives all of them.
    for life in range(1, MAX_ATTEMPTS + 3):
        await projector(log_client, graph.port, RedisFeedGroup(log_client), name=f"life-{life}").sweep()
        assert attempts == min(life, MAX_ATTEMPTS)
        assert len(await letters.letters()) == (life >= MAX_ATTEMPTS)
    (letter,) = await letters.letters()
    assert (letter.failure.stream, letter.failure.version, letter.attempts) == (sick, POISONED, MAX_ATTEMPTS)
    assert set(await letters.parked("projector")) == {sick}
    assert (await inner.cursor(sick)).version == POISONED - 1

    # The other 99 stories are level, and stay so while more is written to all of them.
    follower = projector(log_client, graph.port, RedisFeedGroup(log_client), name="last", sweep_s=0.5)
    async with running(follower):
        await asyncio.gather(*(writer.write(events=2) for writer in writers))

        async def others_are_level() -> bool:
            behind = {stream for stream, lag in (await follower.lag()).items() if lag}
            return behind == {sick}

        assert await eventually(others_are_level, within_s=400)
        acknowledged = [event for writer in writers for event in writer.seen.acknowledged]
        await check(
            log,
            acknowledged=acknowledged,
            graph=inner,
            projection_parked={sick},
            healed=False,
            fired={"handler raised": attempts},
            sometimes={"parked": len(await letters.parked("projector"))},
        )
        assert (attempts, len(await letters.letters())) == (MAX_ATTEMPTS, 1)

        is_broken = False
        await letters.retry(letter.letter_id)

        async def is_level() -> bool:
            return not any((await follower.lag()).values())

        assert await eventually(is_level, within_s=400)
    await check(log, acknowledged=acknowledged, graph=inner, healed=False)
    assert await letters.letters() == []


@pytest.mark.rule("EV-23", "GR-6")
async def test_outage_however_long_is_never_the_fault_of_an_event(log_client: Redis) -> None:
    log, letters = RedisEventLog(log_client), RedisDeadLetters(log_client, log_client)
    writer = StoryWriter(log)
    for _ in range(3):
        await writer.write()
    outages = 0

    async def handler(stream: StreamId, expected: Cursor, reached: Cursor) -> None:
        nonlocal outages
        if outages < 4 * MAX_ATTEMPTS:
            outages += 1
            raise StoreUnavailable("the graph cannot apply this now")

    graph = WatchedGraph(MemoryGraph(), fault=handler)
    follower = projector(log_client, graph.port, RedisFeedGroup(log_client))
    while outages < 4 * MAX_ATTEMPTS:
        await follower.sweep()
    await follower.sweep()
    await check(log, acknowledged=writer.seen.acknowledged, graph=graph.port, healed=False, fired={"outage": outages})
    assert await letters.letters() == []
