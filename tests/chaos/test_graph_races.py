"""F10, F11, F16: hints repeated, shuffled, dropped or trimmed, and several projectors at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from fleet.graph.changes import Cursor
from fleet.graph.memory.graph import MemoryGraph
from fleet.kernel.ids import StreamId
from fleet.log.port import HintDelivery
from fleet.log.redis.dead_letters import RedisDeadLetters
from fleet.log.redis.feed import RedisFeedGroup
from fleet.log.redis.log import RedisEventLog
from tests.support.chaos_projection import ScrambledHints, WatchedGraph, applied_once, projector, running
from tests.support.chaos_servers import connected, log_store
from tests.support.chaos_stories import StoryWriter, whole_story
from tests.support.graphs import empty_graph, fresh, open_graph
from tests.support.oracle import RecordingLog, check
from tests.support.services import Neo4jAddress
from tests.support.stores import empty_database, eventually, own_database
from tests.support.story_events import StoryLog

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
async def log_client(redis_url: str) -> AsyncGenerator[Redis]:
    async with empty_database(own_database(redis_url)) as client:
        yield client


@pytest.mark.parametrize("stories", [3, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.rule("EV-20", "EV-21", "GR-4", "GR-6")
async def test_three_projectors_with_scrambled_hints_apply_each_event_once(
    log_client: Redis, neo4j_address: Neo4jAddress, stories: int
) -> None:
    empty_graph(neo4j_address)
    log = RecordingLog(RedisEventLog(log_client))
    feeds = [ScrambledHints(RedisFeedGroup(log_client, group=f"racer-{n}"), seed=n) for n in range(3)]
    written: list[StoryLog] = []
    async with open_graph(neo4j_address) as one, open_graph(neo4j_address) as two, open_graph(neo4j_address) as three:
        graphs = [WatchedGraph(graph) for graph in (one, two, three)]
        racers = [
            projector(log_client, graph.port, feed, name=f"projector-{n}")
            for n, (graph, feed) in enumerate(zip(graphs, feeds, strict=True))
        ]
        async with running(*racers):

            async def is_level() -> bool:
                return not any((await racers[0].lag()).values())

            # Races are a matter of chance: more stories come until each kind was seen.
            while not written or (len(written) < 10 * stories and not _was_seen(graphs, feeds)):
                batch = [whole_story(fresh()) for _ in range(stories)]
                written += batch
                await asyncio.gather(*(story.write_to(log) for story in batch))
                assert await eventually(is_level, within_s=400)
        await check(
            log,
            acknowledged=log.acknowledged,
            graph=one,
            fired={
                "hint dropped": sum(feed.dropped for feed in feeds),
                "hint repeated": sum(feed.repeated for feed in feeds),
                "hints shuffled": sum(feed.reordered for feed in feeds),
            },
            sometimes={
                "cursor lost race": sum(graph.lost_races for graph in graphs),
                "two projectors wrote": sum(bool(graph.applied) for graph in graphs) > 1,
            },
        )
    for story in written:
        applied_once(graphs, story.stream, head=story.version)
    assert await RedisDeadLetters(log_client, log_client).letters() == []


def _was_seen(graphs: list[WatchedGraph], feeds: list[ScrambledHints]) -> bool:
    wrote = sum(bool(graph.applied) for graph in graphs)
    hints = all(sum(getattr(f, name) for f in feeds) for name in ("dropped", "repeated", "reordered"))
    return hints and wrote > 1 and any(graph.lost_races for graph in graphs)


@pytest.mark.rule("EV-20")
async def test_one_sweep_repairs_every_hint_that_was_lost(log_client: Redis) -> None:
    class NoHints(RedisFeedGroup):
        """Every hint is lost."""

        taken = 0

        async def take(self, consumer: str, *, timeout_s: float) -> list[HintDelivery]:
            found = await super().take(consumer, timeout_s=0)
            NoHints.taken += len(found)
            return []

    log = RecordingLog(RedisEventLog(log_client))
    for _ in range(3):
        await whole_story(fresh()).write_to(log)
    graph, feed = WatchedGraph(MemoryGraph()), NoHints(log_client)
    follower = projector(log_client, graph.port, feed, name="projector-0")
    await follower.handle(await feed.take("projector-0", timeout_s=0))
    assert NoHints.taken > 0
    assert sum((await follower.lag()).values()) == len(log.acknowledged)
    await follower.sweep()
    await check(log, acknowledged=log.acknowledged, graph=graph.port, fired={"hint lost": NoHints.taken})


@pytest.mark.parametrize("commands", [150, pytest.param(1250, marks=pytest.mark.slow)])
@pytest.mark.rule("EV-7", "EV-20")
async def test_feed_trimmed_under_a_slow_projector_loses_nothing(tmp_path: Path, commands: int) -> None:
    async with log_store(tmp_path / "log") as server, connected(server.url) as client:
        # Redis trims whole nodes of a stream: small ones make a small feed a short one.
        await client.config_set("stream-node-max-entries", "8")
        log = RedisEventLog(client, max_hints=8)
        writers = [StoryWriter(log) for _ in range(4)]

        async def slowly(stream: StreamId, expected: Cursor, reached: Cursor) -> None:
            await asyncio.sleep(0.05)

        graph = WatchedGraph(MemoryGraph(), fault=slowly)
        follower = projector(client, graph.port, RedisFeedGroup(client, abandoned_after_s=1), name="slow", sweep_s=1.0)
        async with running(follower):

            async def write(writer: StoryWriter) -> None:
                for _ in range(commands):
                    await writer.write(events=2)

            await asyncio.gather(*(write(writer) for writer in writers))
            hints = sum([await client.xlen(key) for key in await client.keys("*:feed")])

            async def is_level() -> bool:
                return not any((await follower.lag()).values())

            assert await eventually(is_level, within_s=400)
        await check(
            log,
            acknowledged=[event for writer in writers for event in writer.seen.acknowledged],
            graph=graph.port,
            healed=False,
            fired={"hint trimmed": 4 * commands - hints},
        )
