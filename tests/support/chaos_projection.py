"""Projectors for fault tests: a graph that can fail or lose races and tells so, and hints in a bad state."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, cast

from redis.asyncio import Redis

from fleet.graph.changes import Cursor, GraphChange
from fleet.graph.port import DecisionGraph
from fleet.graph.service.projector import Projector
from fleet.kernel.clock import SystemClock
from fleet.kernel.ids import StreamId
from fleet.log.port import EventLog, FeedGroup, HintDelivery
from fleet.log.redis.dead_letters import RedisDeadLetters
from fleet.log.redis.log import RedisEventLog
from tests.support.chaos_stories import killed

Fault = Callable[[StreamId, Cursor, Cursor], Awaitable[None]]


async def _nothing(stream: StreamId, expected: Cursor, reached: Cursor) -> None:
    """No fault."""


class WatchedGraph:
    """A `DecisionGraph` that keeps what became of each batch, and whose `apply` fails when `fault` raises first."""

    def __init__(self, inner: DecisionGraph, *, fault: Fault = _nothing) -> None:
        self._inner = inner
        self.fault = fault
        self.applied: defaultdict[StreamId, list[tuple[int, int]]] = defaultdict(list)
        """Versions (after, up to) of each batch that was applied by this object."""
        self.lost_races = 0
        """Batches that changed nothing, because the cursor had moved."""
        self.asked: Counter[tuple[StreamId, int, int]] = Counter()
        """How often each batch was tried."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @property
    def port(self) -> DecisionGraph:
        """This graph as what it is to a projector; everything but `apply` is the inner one's."""
        return cast("DecisionGraph", self)

    async def apply(
        self,
        stream: StreamId,
        changes: Sequence[GraphChange],
        *,
        expected: Cursor,
        reached: Cursor,
        projection: int | None = None,
    ) -> bool:
        """See `DecisionGraph.apply`."""
        self.asked[stream, expected.version, reached.version] += 1
        await self.fault(stream, expected, reached)
        done = await self._inner.apply(stream, changes, expected=expected, reached=reached, projection=projection)
        if done:
            self.applied[stream].append((expected.version, reached.version))
        else:
            self.lost_races += 1
        return done


def applied_once(graphs: Sequence[WatchedGraph], stream: StreamId, *, head: int) -> None:
    """Of all these writers together each version was applied once, in order: their batches join without overlap."""
    batches = sorted(batch for graph in graphs for batch in graph.applied[stream])
    assert batches[0][0] == 0
    assert batches[-1][1] == head
    for (_, reached), (after, _) in pairwise(batches):
        assert after == reached, f"{stream}: versions {after + 1}..{reached} were applied twice or never: {batches}"


class ScrambledHints:
    """A `FeedGroup` that delivers each hint one to five times and out of order, or not at all (one in five)."""

    def __init__(self, inner: FeedGroup, *, seed: int) -> None:
        self._inner = inner
        self._draw = random.Random(seed)
        self._waiting: list[HintDelivery] = []
        self.dropped = self.repeated = self.reordered = 0

    async def take(self, consumer: str, *, timeout_s: float) -> list[HintDelivery]:
        """See `FeedGroup.take`."""
        for delivery in await self._inner.take(consumer, timeout_s=0.05 if self._waiting else timeout_s):
            if self._draw.random() < 0.2:
                self.dropped += 1
                await self._inner.acknowledge([delivery])
                continue
            copies = self._draw.randint(1, 5)
            self.repeated += copies - 1
            self._waiting += [delivery] * copies
        before = [delivery.receipt for delivery in self._waiting]
        self._draw.shuffle(self._waiting)
        self.reordered += before != [delivery.receipt for delivery in self._waiting]
        # At least half waits for the next time, so that hints of different moments meet.
        count = self._draw.randint(0, (len(self._waiting) + 1) // 2)
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken

    async def acknowledge(self, deliveries: Sequence[HintDelivery]) -> None:
        """See `FeedGroup.acknowledge`."""
        await self._inner.acknowledge(deliveries)


def projector(
    client: Redis,
    graph: DecisionGraph,
    feed: FeedGroup,
    *,
    name: str = "projector-0",
    sweep_s: float = 2.0,
    log: EventLog | None = None,
) -> Projector:
    """A projector as the fleet has it over this server, but for graph, feed and a short period."""
    return Projector(
        log or RedisEventLog(client),
        graph,
        feed=feed,
        letters=RedisDeadLetters(client, client),
        clock=SystemClock(),
        consumer=name,
        sweep_s=sweep_s,
        poll_s=0.2,
    )


@asynccontextmanager
async def running(*projectors: Projector) -> AsyncGenerator[None]:
    """The projectors run as long as the block. One that ended by itself fails the test with its error."""
    tasks = [asyncio.create_task(projector.run(), name="projector") for projector in projectors]
    try:
        yield
        for task in tasks:
            assert not task.done(), f"a projector ended by itself: {task}"
    finally:
        await killed(*tasks)
