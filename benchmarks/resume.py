"""Seconds until a story of so many events can be worked on again, against reading its bare entries."""

from __future__ import annotations

import time
from pathlib import Path

from redis.asyncio import Redis

from benchmarks.figures import Figure
from benchmarks.stores import append_one, log_store, question
from fleet.events.codec import encode
from fleet.events.envelope import Head
from fleet.events.story import AcceptanceCriterion, StoryCreated
from fleet.kernel.ids import Digest, EntityId, Principal, StoryId, StreamId
from fleet.log.redis.connection import connect_redis
from fleet.log.redis.keys import stream_key
from fleet.log.redis.log import RedisEventLog
from fleet.story.evolve.story import fold
from fleet.story.snapshot import decode_state, encode_state
from fleet.story.state import StoryState

LENGTHS, ROUNDS = (200, 1000, 4000), 5


async def measure(folder: Path) -> list[Figure]:
    """Full fold, and snapshot with a tail of 100 events, for three lengths."""
    async with log_store(folder) as url:
        client = connect_redis(url)
        try:
            found: list[Figure] = []
            for length in LENGTHS:
                found += await _of_length(client, length)
            return found
        finally:
            await client.aclose()


async def _of_length(client: Redis, length: int) -> list[Figure]:
    log, stream = RedisEventLog(client), StreamId.of_story(StoryId(f"st-long-{length}"))
    head = await append_one(log, stream, Head(), encode(_created()), ts_ms=1)
    for number in range(length - 1):
        head = await append_one(log, stream, head, question(number), ts_ms=number + 2)
    bare = await _best(lambda: client.xrange(stream_key(stream, "log")))  # pyright: ignore

    async def whole() -> StoryState | None:
        return fold(await log.read(stream))

    until = max(1, length - 100)
    kept = fold(await log.read(stream, limit=until))
    assert kept is not None
    data = encode_state(kept)

    async def from_snapshot() -> StoryState | None:
        return fold(await log.read(stream, after=until), decode_state(data))

    assert await whole() == await from_snapshot()
    return [
        Figure(f"resume, {length} events, folded whole", await _best(whole) * 1e3, "ms", "bare XRANGE", bare * 1e3),
        Figure(
            f"resume, {length} events, snapshot of {len(data) // 1024} KiB and 100 events",
            await _best(from_snapshot) * 1e3,
            "ms",
            "bare XRANGE",
            bare * 1e3,
        ),
    ]


async def _best(work: object) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        await work()  # type: ignore[operator]  # pyright: ignore
        best = min(best, time.perf_counter() - started)
    return best


def _created() -> StoryCreated:
    digest = Digest("sha256:" + "0" * 64)
    return StoryCreated(
        project_id=EntityId("pr-bench"),
        epic_id=EntityId("ep-bench"),
        title="A long story",
        description="A story with as many events as it takes.",
        acceptance_criteria=(AcceptanceCriterion(ac_id=EntityId("ac-1"), text="It is long."),),
        constraints={},
        tags=(),
        rigor="L1",
        lifecycle="agile",
        language="en",
        priority=1,
        requester=Principal("user:bench"),
        content_digest=digest,
        config={},
    )
