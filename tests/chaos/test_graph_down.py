"""F8 and F9: the graph's server is killed under a stream of events, or a commit's reply never comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from cluster.local.arcadedb import ArcadeDb
from fleet.graph.changes import Cursor
from fleet.graph.neo4j.graph import Neo4jGraph
from fleet.kernel.errors import StoreUnavailable
from fleet.kernel.ids import StreamId
from fleet.log.redis.dead_letters import RedisDeadLetters
from fleet.log.redis.feed import RedisFeedGroup
from fleet.log.redis.log import RedisEventLog
from tests.support.chaos_projection import WatchedGraph, projector, running
from tests.support.chaos_servers import crash
from tests.support.chaos_stories import whole_story
from tests.support.fault_proxy import COMMIT, proxied
from tests.support.graphs import empty_graph, fresh, open_graph
from tests.support.oracle import RecordingLog, check
from tests.support.services import Neo4jAddress
from tests.support.stores import empty_database, eventually, own_database
from tests.support.story_events import StoryLog

pytestmark = pytest.mark.timeout(600)


async def _p99_ms(log: RecordingLog, stories: int, *, pause_s: float) -> float:
    """So many whole stories are appended, with pauses between them; how long the slowest of a hundred appends took."""
    took: list[float] = []
    loop = asyncio.get_running_loop()

    class Timed:
        async def append(self, request: Any) -> Any:
            began = loop.time()
            outcome = await log.append(request)
            took.append((loop.time() - began) * 1000)
            return outcome

    for _ in range(stories):
        await whole_story(fresh()).write_to(Timed())  # pyright: ignore[reportArgumentType]
        await asyncio.sleep(pause_s)
    return sorted(took)[len(took) * 99 // 100]


@pytest.fixture
async def log_client(redis_url: str) -> AsyncGenerator[Redis]:
    async with empty_database(own_database(redis_url)) as client:
        yield client


@pytest.mark.parametrize("down_s", [2, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.rule("EV-20", "EV-23", "GR-6")
async def test_graph_killed_under_five_hundred_events_catches_up_and_blames_no_event(
    tmp_path: Path, log_client: Redis, down_s: int, record_property: Any
) -> None:
    server = ArcadeDb(tmp_path / "graph")
    await server.start()
    inner = Neo4jGraph.connect(server.address, user="root", password=server.password, database="neo4j", timeout_s=0.5)
    graph = WatchedGraph(inner)
    log = RecordingLog(RedisEventLog(log_client))
    follower = projector(log_client, graph.port, RedisFeedGroup(log_client))

    async def is_level() -> bool:
        return not any((await follower.lag()).values())

    try:
        async with running(follower):
            before = await _p99_ms(log, 2, pause_s=0.1)
            assert await eventually(is_level, within_s=400)
            await crash(server)
            with pytest.raises(StoreUnavailable):
                await inner.projection()
            during = await _p99_ms(log, 3, pause_s=down_s / 3)
            assert not server.is_alive
            # Nothing of it went wrong, and nobody had to wait for the graph: each append is one call of the log.
            assert set(log.outcomes) == {"Appended"}
            await server.start()
            loop, back = asyncio.get_running_loop(), asyncio.get_running_loop().time()
            assert await eventually(is_level, within_s=400 + down_s / 4)
            record_property("append_p99_ms", {"before": before, "while it was down": during})
            record_property("caught_up_after_s", loop.time() - back)
        await check(log, acknowledged=log.acknowledged, graph=graph.port, fired={"kill of the graph": 1})
        assert await RedisDeadLetters(log_client, log_client).letters() == []
    finally:
        await inner.close()
        await server.stop()


@pytest.mark.parametrize("rounds", [5, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("is_certain", [True, False], ids=["reply lost", "cut when sent"])
@pytest.mark.rule("GR-4", "GR-6", "EV-23")
async def test_commit_without_a_reply_applies_its_events_once(
    log_client: Redis, neo4j_address: Neo4jAddress, rounds: int, is_certain: bool
) -> None:
    empty_graph(neo4j_address)
    log, story = RecordingLog(RedisEventLog(log_client)), whole_story(fresh())
    async with proxied(neo4j_address.uri) as (proxy, uri), open_graph(neo4j_address._replace(uri=uri)) as inner:
        batch: tuple[Cursor, Cursor] | None = None

        async def arm(stream: StreamId, expected: Cursor, reached: Cursor) -> None:
            nonlocal batch
            if batch is None:
                batch = (expected, reached)
                (proxy.lose_reply_to if is_certain else proxy.cut_at)(COMMIT)

        graph = WatchedGraph(inner, fault=arm)
        follower = projector(log_client, graph.port, RedisFeedGroup(log_client))
        number = 0
        for number, (after, until) in enumerate(pairwise([0, *_ends(story, rounds)]), start=1):
            await _write(log, story, after=after, until=until)
            batch = None
            await follower.sweep()
            assert proxy.lost + proxy.cuts == number
            assert batch is not None
            if is_certain:
                # It was stored although its reply was lost: the same batch, sent again, changes nothing.
                assert await inner.cursor(story.stream) == batch[1]
                assert not await inner.apply(story.stream, [], expected=batch[0], reached=batch[1])
            await follower.sweep()
        await check(log, acknowledged=log.acknowledged, graph=inner, fired={"commit without a reply": number})
    assert await RedisDeadLetters(log_client, log_client).letters() == []


def _ends(story: StoryLog, parts: int) -> list[int]:
    """Versions at which commands end, about evenly spread, the last one the end of the story."""
    events = story.events
    ends = [n for n in range(1, len(events)) if events[n].command_id != events[n - 1].command_id] + [len(events)]
    return [ends[len(ends) * number // parts - 1] for number in range(1, parts + 1)]


async def _write(log: RecordingLog, story: StoryLog, *, after: int, until: int) -> None:
    part = StoryLog(story.story_id)
    part.events = story.events[:until]
    await part.write_to(log, after=after)
