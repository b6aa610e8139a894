"""A log, a graph and projectors in one process, for the tests of the projection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from fleet.audit.service.stream_export import export_stream
from fleet.events.codec import encode
from fleet.events.envelope import NewEvent
from fleet.events.payload import Payload
from fleet.graph.changes import Cursor, GraphChange
from fleet.graph.memory.graph import MemoryGraph
from fleet.graph.port import DecisionGraph
from fleet.graph.schema import PROJECTION_VERSION
from fleet.graph.service.projector import Projector
from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import StoreUnavailable
from fleet.kernel.ids import CommandId, Principal, StreamId
from fleet.log.memory import MemoryDeadLetters, MemoryEventLog, MemoryFeedGroup
from fleet.log.port import Appended, AppendRequest
from fleet.trees.memory import MemoryBlobStore
from tests.support.event_samples import samples

STORY, OTHER = StreamId("story:st-a1"), StreamId("story:st-b2")
PROJECT = StreamId("project:pr-default")
CREATED, MOVED = samples()["StoryCreated"], samples()["StoryTransitioned"]


class CountingGraph(MemoryGraph):
    """Remembers what came of each apply, and refuses one event of one stream while it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.applied: list[bool] = []
        self.sizes: list[int] = []
        self.poisoned: tuple[StreamId, int] | None = None
        self.refusals = 0
        self.overfull: StreamId | None = None
        """The stream whose batches cannot be stored, although everything else works."""

    async def apply(
        self,
        stream: StreamId,
        changes: Sequence[GraphChange],
        *,
        expected: Cursor,
        reached: Cursor,
        projection: int | None = None,
    ) -> bool:
        if self.poisoned and stream == self.poisoned[0] and expected.version < self.poisoned[1] <= reached.version:
            self.refusals += reached.version - expected.version == 1
            raise ValueError("a defect")
        if stream == self.overfull:
            raise StoreUnavailable("this batch is too much")
        done = await super().apply(stream, changes, expected=expected, reached=reached, projection=projection)
        self.applied.append(done)
        self.sizes.append(reached.version - expected.version)
        return done


class Projections:
    """Stores that outlive every projector over them."""

    def __init__(self, graph: DecisionGraph | None = None) -> None:
        self.clock = MemoryClock()
        self.log, self.counting = MemoryEventLog(), CountingGraph()
        self.graph: DecisionGraph = graph or self.counting
        self.letters = MemoryDeadLetters(self.clock)
        self.blobs = MemoryBlobStore()
        self.feed = MemoryFeedGroup(self.log, self.clock)

    def projector(
        self, log: MemoryEventLog | None = None, *, version: int = PROJECTION_VERSION, poll_s: float = 2.0
    ) -> Projector:
        """A new process over the same stores."""
        return Projector(
            log or self.log,
            self.graph,
            feed=self.feed if log is None else MemoryFeedGroup(log, self.clock),
            letters=self.letters,
            clock=self.clock,
            blobs=self.blobs,
            seed=1,
            version=version,
            poll_s=poll_s,
        )

    async def archive(self, stream: StreamId) -> None:
        """The story's stream is a blob, named by a tombstone, and no longer in the log."""
        events, head = await self.log.read(stream), await self.log.head(stream)
        export = await self.blobs.put(export_stream(events, await self.log.commands(stream)))
        facts = {"story_id": stream.entity, "export_digest": export, "last_version": head.version}
        tombstone = samples()["StoryTombstoned"].model_copy(update={**facts, "last_hash": head.hash})
        await append(self.log, PROJECT, tombstone)
        await self.log.erase(stream, expected=head)

    async def rebuilt(self, projector: Projector | None = None) -> None:
        """Every piece of an owed rebuild is done."""
        worker = projector or self.projector()
        for _ in range(1000):
            if not await worker.rebuild_step():
                return
        raise AssertionError("the rebuild does not end")


async def append(log: MemoryEventLog, stream: StreamId, *events: Payload | NewEvent, ts_ms: int = 1) -> None:
    """The events are at the end of the stream."""
    head = await log.head(stream)
    request = AppendRequest(
        stream=stream,
        events=[encode(e) if isinstance(e, Payload) else e for e in events],
        expected=head,
        command_id=CommandId(f"{stream.entity}/{head.version}"),
        actor=Principal("system:council"),
        ts_ms=ts_ms,
    )
    assert isinstance(await log.append(request), Appended)


@asynccontextmanager
async def running(*projectors: Projector) -> AsyncGenerator[list[asyncio.Task[None]]]:
    """The projectors run until the end of the block."""
    tasks = [asyncio.create_task(projector.run()) for projector in projectors]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
