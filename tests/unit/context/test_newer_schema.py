"""A reader that meets an event newer than itself stops there and skips nothing (EV-30; F20)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fleet.context.port import PackRequest
from fleet.context.scope import ContextConfig
from fleet.context.service.packs import ContextService
from fleet.events.codec import decode, encode
from fleet.events.envelope import NewEvent, StoredEvent
from fleet.events.story import StoryCancelled
from fleet.graph.effects.table import effects
from fleet.kernel.errors import UnsupportedSchema
from fleet.kernel.ids import CommandId, Principal, StoryId
from fleet.log.memory import MemoryEventLog
from fleet.log.port import AppendRequest
from fleet.report.service.reports import ReportService
from fleet.story.evolve.story import fold
from fleet.story.snapshot import replay
from tests.support.bench import World
from tests.support.rules import files, fsm
from tests.support.story_events import STORY, story

META = b'"meta":{"origin":"owner","trace_id":""}'
NEWER = {
    "newer schema": NewEvent(type="StoryParked", schema=2, body=b'{"why":"disk",' + META + b"}"),
    "unknown type": NewEvent(type="StoryPainted", schema=1, body=b'{"colour":"red",' + META + b"}"),
}


@pytest.fixture(params=NEWER.values(), ids=NEWER)
async def log(request: pytest.FixtureRequest) -> MemoryEventLog:
    """A delivered story whose last event was written by a later version of the product, and one event after it."""
    log = MemoryEventLog()
    written = story(until="merged")
    await written.write_to(log)
    after = encode(StoryCancelled(reason="nobody wants it any more"))
    append = AppendRequest(
        stream=written.stream,
        events=[request.param, after],
        expected=await log.head(written.stream),
        command_id=CommandId("newer/1"),
        actor=Principal("system:council"),
        ts_ms=written.events[-1].ts_ms + 1,
    )
    await log.append(append)
    return log


Reader = Callable[[World, list[StoredEvent]], Awaitable[Any]]


async def _fold(_: World, events: list[StoredEvent]) -> Any:
    return fold(events)


async def _replay(_: World, events: list[StoredEvent]) -> Any:
    return list(replay(events, fsm()))


async def _graph(_: World, events: list[StoredEvent]) -> Any:
    return [effects(event, decode(event)) for event in events]


async def _owner(world: World, _: list[StoredEvent]) -> Any:
    return await world.journal()


async def _desk(world: World, _: list[StoredEvent]) -> Any:
    return await world.desk.state(STORY)


async def _report(world: World, _: list[StoredEvent]) -> Any:
    return await ReportService(world.log, world.blobs).generate(STORY, format="md")


async def _pack(world: World, events: list[StoredEvent]) -> Any:
    service = ContextService(world.log, world.blobs, files().load("context.yaml", ContextConfig), clock=world.clock)
    return await service.pack(PackRequest(story_id=STORY, role="developer", phase="BUILD", as_of=len(events)))


READERS: dict[str, Reader] = {
    "fold": _fold,
    "replay": _replay,
    "graph": _graph,
    "owner": _owner,
    "desk": _desk,
    "report": _report,
    "pack": _pack,
}


@pytest.mark.rule("EV-30")
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
async def test_reader_stops_at_the_event_that_it_does_not_know(log: MemoryEventLog, read: Reader) -> None:
    world = World(log=log)
    events = await world.events(StoryId(STORY))
    newer = len(events) - 1
    with pytest.raises(UnsupportedSchema, match="upgrade fleet") as caught:
        await read(world, events)
    assert caught.value.details["version"] == newer


@pytest.mark.rule("EV-30")
async def test_what_came_before_is_still_read(log: MemoryEventLog) -> None:
    world = World(log=log)
    events = await world.events(StoryId(STORY))
    before = fold(events[:-2])
    assert before is not None
    assert await world.desk.state(STORY, as_of=len(events) - 2) == before
