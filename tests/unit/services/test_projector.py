"""The projector over the twins in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import pytest

from fleet.adapters.memory import MemoryClock, MemoryEventLog, MemoryFeed, MemoryGraph
from fleet.errors import LogCorrupted, LogRegressed, UnsupportedSchema
from fleet.events import NewEvent, Payload, encode
from fleet.graph import Cursor, GraphChange
from fleet.ids import CommandId, Principal, StreamId
from fleet.ports import Appended, AppendRequest
from fleet.services.projector import Projector
from tests.support.event_samples import samples
from tests.support.stores import eventually

STORY, OTHER = StreamId("story:st-a1"), StreamId("story:st-b2")
CREATED, MOVED = samples()["StoryCreated"], samples()["StoryTransitioned"]


class CountingGraph(MemoryGraph):
    """Remembers what came of each apply."""

    def __init__(self) -> None:
        super().__init__()
        self.applied: list[bool] = []
        self.sizes: list[int] = []
        self.poisoned: StreamId | None = None
        self.refusals = 0

    async def apply(
        self, stream: StreamId, changes: Sequence[GraphChange], *, expected: Cursor, reached: Cursor
    ) -> bool:
        if stream == self.poisoned:
            self.refusals += 1
            raise ValueError("a defect")
        done = await super().apply(stream, changes, expected=expected, reached=reached)
        self.applied.append(done)
        self.sizes.append(reached.version - expected.version)
        return done


class World:
    """A log, a graph and what projects one to the other."""

    def __init__(self) -> None:
        self.log, self.graph, self.clock = MemoryEventLog(), CountingGraph(), MemoryClock()

    def projector(self, log: MemoryEventLog | None = None) -> Projector:
        chosen = log or self.log
        return Projector(chosen, MemoryFeed(chosen, self.clock), self.graph, self.clock, seed=1)


async def append(log: MemoryEventLog, stream: StreamId, *events: Payload | NewEvent, ts_ms: int = 1) -> None:
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
async def running(projector: Projector) -> AsyncGenerator[None]:
    task = asyncio.create_task(projector.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.rule("GR-4", "EV-20")
async def test_run_projects_what_is_there_and_follows_hints() -> None:
    world = World()
    await append(world.log, STORY, CREATED)
    projector = world.projector()
    assert await projector.lag() == {str(STORY): 1}
    async with running(projector):
        assert await eventually(lambda: len(world.graph.applied) == 1, within_s=5)
        await append(world.log, STORY, MOVED)
        await append(world.log, OTHER, CREATED)
        assert await eventually(lambda: len(world.graph.applied) == 3, within_s=5)
    assert await projector.lag() == {str(STORY): 0, str(OTHER): 0}
    assert world.graph.nodes[("Story", "st-a1")]["state"] == "DESIGN"  # pyright: ignore[reportArgumentType]


@pytest.mark.rule("EV-20")
async def test_sweep_repairs_a_lost_hint() -> None:
    world = World()
    async with running(world.projector()):
        assert await eventually(lambda: world.clock.sleepers == 1, within_s=5)
        await append(world.log, STORY, CREATED)
        world.log.hints.clear()
        for _ in range(20):
            await asyncio.sleep(0)
        assert world.graph.applied == []
        world.clock.advance(31)
        assert await eventually(lambda: world.graph.applied == [True], within_s=5)


@pytest.mark.rule("GR-4")
async def test_long_stream_is_applied_in_batches_of_200() -> None:
    world = World()
    for _ in range(5):
        await append(world.log, STORY, *[MOVED] * 90)
    assert await world.projector().catch_up(STORY) == 450
    assert world.graph.sizes == [200, 200, 50]


@pytest.mark.rule("GR-4")
async def test_two_projectors_apply_every_batch_once() -> None:
    world, alone = World(), World()
    for _ in range(3):
        for one in (world, alone):
            await append(one.log, STORY, CREATED, *[MOVED] * 89)
    done = await asyncio.gather(*(world.projector().catch_up(STORY) for _ in range(2)))
    await alone.projector().catch_up(STORY)
    assert done == [270, 270]
    assert False in world.graph.applied, "no race was seen"
    assert world.graph.applied.count(True) == 2
    assert await world.graph.digest() == await alone.graph.digest()


@pytest.mark.rule("GR-6", "EV-19")
async def test_cursor_ahead_of_the_log_is_log_regressed_and_others_go_on() -> None:
    world, older = World(), MemoryEventLog()
    await append(world.log, STORY, CREATED, MOVED)
    await world.projector().sweep()
    await append(older, STORY, CREATED)
    await append(older, OTHER, CREATED)
    projector = world.projector(older)
    with pytest.raises(LogRegressed) as caught:
        await projector.catch_up(STORY)
    assert caught.value.details == {"stream": str(STORY), "projected": 2, "head": 1}
    await projector.sweep()
    assert list(projector.set_aside) == [STORY]
    assert await projector.lag() == {str(STORY): -1, str(OTHER): 0}


@pytest.mark.rule("GR-6")
async def test_other_history_at_the_cursor_is_log_regressed() -> None:
    world, forked = World(), MemoryEventLog()
    await append(world.log, STORY, CREATED)
    await world.projector().sweep()
    await append(forked, STORY, CREATED, MOVED, ts_ms=2)
    before = await world.graph.digest()
    with pytest.raises(LogRegressed, match="another event"):
        await world.projector(forked).catch_up(STORY)
    assert await world.graph.digest() == before


@pytest.mark.rule("GR-6", "EV-23")
async def test_graph_that_is_down_is_waited_for_longer_each_time_and_blames_no_stream() -> None:
    world = World()
    await append(world.log, STORY, CREATED)
    world.graph.is_down = True
    projector = world.projector()
    pauses: list[int] = []
    async with running(projector):
        for _ in range(12):
            assert await eventually(lambda: world.clock.sleepers == 1, within_s=5)
            started = world.clock.monotonic_ms()
            while world.clock.sleepers:
                world.clock.advance(0.05)
            pauses.append(world.clock.monotonic_ms() - started)
            await asyncio.sleep(0)
        assert pauses[0] <= 250
        assert pauses[3] > pauses[0]
        assert max(pauses) <= 30_050
        assert min(pauses[8:]) >= 15_000
        world.graph.is_down = False
        assert await eventually(lambda: world.clock.sleepers == 1, within_s=5)
        world.clock.advance(31)
        assert await eventually(lambda: world.graph.applied == [True], within_s=5)
    assert projector.set_aside == {}


@pytest.mark.rule("EV-30")
async def test_newer_schema_sets_the_stream_aside_after_what_is_readable() -> None:
    world = World()
    newer = NewEvent(type="StoryCreated", schema=99, body=encode(CREATED).body)
    await append(world.log, STORY, CREATED, newer, MOVED)
    await append(world.log, OTHER, CREATED)
    projector = world.projector()
    await projector.sweep()
    assert isinstance(projector.set_aside[STORY], UnsupportedSchema)
    assert await projector.lag() == {str(STORY): 2, str(OTHER): 0}
    await projector.sweep()
    assert len(world.graph.applied) == 2
    projector.resume(STORY)
    assert projector.set_aside == {}
    with pytest.raises(UnsupportedSchema):
        await projector.catch_up(STORY)


async def test_body_that_cannot_be_read_sets_the_stream_aside() -> None:
    world = World()
    await append(world.log, STORY, NewEvent(type="StoryCreated", schema=1, body=b"{}"))
    projector = world.projector()
    await projector.sweep()
    assert isinstance(projector.set_aside[STORY], LogCorrupted)
    assert world.graph.applied == []


@pytest.mark.rule("EV-22")
async def test_stream_that_always_fails_is_set_aside_after_five_attempts_and_others_go_on() -> None:
    world = World()
    await append(world.log, STORY, CREATED)
    await append(world.log, OTHER, CREATED)
    world.graph.poisoned = STORY
    projector = world.projector()
    for _ in range(7):
        await projector.sweep()
    assert world.graph.refusals == 5
    assert list(projector.set_aside) == [STORY]
    assert await projector.lag() == {str(STORY): 1, str(OTHER): 0}
    world.graph.poisoned = None
    projector.resume(STORY)
    await projector.sweep()
    assert await projector.lag() == {str(STORY): 0, str(OTHER): 0}
