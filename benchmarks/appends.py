"""Appends of the event log against bare XADD of the same bytes on the same server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from redis.asyncio import Redis

from benchmarks.figures import Figure, percentile
from benchmarks.stores import append_one, log_store, question
from fleet.events.envelope import Head
from fleet.kernel.ids import StoryId, StreamId
from fleet.log.redis.connection import connect_redis
from fleet.log.redis.log import RedisEventLog

ALONE, WRITERS, EACH = 1500, 16, 120


async def measure(folder: Path) -> list[Figure]:
    """Appends a second, one writer and sixteen, and the time of one append."""
    async with log_store(folder) as url:
        client = connect_redis(url)
        try:
            return await _figures(client)
        finally:
            await client.aclose()


async def _figures(client: Redis) -> list[Figure]:
    log = RedisEventLog(client)
    # Both in turn, so that a slow minute of the machine falls on both.
    bare: list[float] = []
    ours: list[float] = []
    for part in range(3):
        bare += await _timed(ALONE // 3, _bare_writer(client, f"bare:{part}"))
        ours += await _timed(ALONE // 3, _log_writer(log, f"st-alone-{part}"))
    bare_many = await _together(lambda n: _bare_writer(client, f"many:{n}"))
    ours_many = await _together(lambda n: _log_writer(log, f"st-many-{n}"))
    return [
        Figure("appends, one writer", len(ours) / sum(ours), "1/s", "bare XADD", len(bare) / sum(bare)),
        Figure("appends, 16 writers", ours_many, "1/s", "bare XADD", bare_many),
        Figure("append p50", percentile(ours, 50) * 1e3, "ms", "bare XADD", percentile(bare, 50) * 1e3),
        Figure("append p99", percentile(ours, 99) * 1e3, "ms", "bare XADD", percentile(bare, 99) * 1e3),
    ]


Write = Callable[[int], Awaitable[None]]


def _bare_writer(client: Redis, key: str) -> Write:
    async def write(number: int) -> None:
        await client.execute_command("XADD", key, f"{number + 1}-0", "b", question(number).body)  # pyright: ignore

    return write


def _log_writer(log: RedisEventLog, name: str) -> Write:
    stream, head = StreamId.of_story(StoryId(name)), Head()

    async def write(number: int) -> None:
        nonlocal head
        head = await append_one(log, stream, head, question(number), ts_ms=number)

    return write


async def _timed(count: int, write: Write) -> list[float]:
    """Seconds of each write."""
    found: list[float] = []
    for number in range(count):
        started = time.perf_counter()
        await write(number)
        found.append(time.perf_counter() - started)
    return found


async def _together(writer: Callable[[int], Write]) -> float:
    """Writes a second of all writers."""
    started = time.perf_counter()
    await asyncio.gather(*(_timed(EACH, writer(n)) for n in range(WRITERS)))
    return WRITERS * EACH / (time.perf_counter() - started)
