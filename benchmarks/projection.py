"""How far the graph is behind while the log is written, and how fast it catches up, against plain appends."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from benchmarks.figures import Figure, percentile
from benchmarks.stores import append_one, graph_store, log_store, question
from fleet.events.envelope import Head
from fleet.graph.service.projector import Projector
from fleet.kernel.clock import SystemClock
from fleet.kernel.ids import StoryId, StreamId
from fleet.log.redis.connection import connect_redis
from fleet.log.redis.dead_letters import RedisDeadLetters
from fleet.log.redis.feed import RedisFeedGroup
from fleet.log.redis.log import RedisEventLog

STORIES, EVENTS, PER_S = 10, 60, 40.0


async def measure(folder: Path) -> list[Figure]:
    """Lag under a steady load of ten stories, and events a second when a backlog is worked off."""
    async with log_store(folder) as url, graph_store(folder) as graph:
        client = connect_redis(url)
        log = RedisEventLog(client)
        projector = Projector(
            log,
            graph,
            feed=RedisFeedGroup(client),
            letters=RedisDeadLetters(client, client),
            clock=SystemClock(),
            consumer="bench",
        )
        try:
            backlog_s, appended_s = await _backlog(log, projector)
            lags = await _under_load(log, projector)
        finally:
            await client.aclose()
    total = STORIES * EVENTS
    return [
        Figure("projection of a backlog", total / backlog_s, "events/s", "appends", total / appended_s),
        Figure("projection lag under load, p50", percentile(lags, 50), "events", note=f"{PER_S:g} events/s"),
        Figure("projection lag under load, p99", percentile(lags, 99), "events", note=f"{PER_S:g} events/s"),
    ]


async def _write(log: RedisEventLog, prefix: str, *, pause_s: float) -> float:
    started = time.perf_counter()
    heads = {StreamId.of_story(StoryId(f"{prefix}-{n}")): Head() for n in range(STORIES)}
    for number in range(EVENTS):
        for stream in heads:
            heads[stream] = await append_one(log, stream, heads[stream], question(number), ts_ms=number)
            await asyncio.sleep(pause_s)
    return time.perf_counter() - started


async def _backlog(log: RedisEventLog, projector: Projector) -> tuple[float, float]:
    appended_s = await _write(log, "st-backlog", pause_s=0)
    started = time.perf_counter()
    await projector.sweep()
    return time.perf_counter() - started, appended_s


async def _under_load(log: RedisEventLog, projector: Projector) -> list[float]:
    running = asyncio.create_task(projector.run())
    writing = asyncio.create_task(_write(log, "st-load", pause_s=1 / PER_S))
    lags: list[float] = []
    try:
        while not writing.done():
            lags.append(float(sum((await projector.lag()).values())))
            await asyncio.sleep(0.1)
        await writing
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    return lags
