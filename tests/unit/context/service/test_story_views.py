"""Views of stories: moved on, begun from a snapshot, or folded, always the same (CX-33, CX-44)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fleet.context.service.story_views import StoryViews
from fleet.context.view import StoryView
from fleet.events.context import SummaryRecorded
from fleet.events.envelope import StoredEvent
from fleet.kernel.errors import StoreUnavailable
from fleet.kernel.ids import StreamId
from fleet.log.memory import MemoryEventLog, MemorySnapshotStore
from fleet.log.port import Snapshot
from fleet.story.evolve.story import fold
from fleet.story.snapshot import encode_state, state_schema
from fleet.trees.memory import MemoryBlobStore
from tests.support.event_samples import samples
from tests.support.story_events import STORY, StoryLog, story

STREAM = StreamId.of_story(STORY)


class CountingLog(MemoryEventLog):
    """Tells which versions were read."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    async def read(self, stream: StreamId, *, after: int = 0, limit: int | None = None) -> list[StoredEvent]:
        found = await super().read(stream, after=after, limit=limit)
        self.asked += [event.version for event in found]
        return found


class BrokenSnapshots(MemorySnapshotStore):
    async def get(self, stream: StreamId) -> Snapshot | None:
        raise StoreUnavailable("the store of snapshots is away")


def snapshot(log: StoryLog, version: int) -> Snapshot:
    state = fold(log.events[:version])
    assert state is not None
    return Snapshot(version=version, hash=log.events[version - 1].hash, schema=state_schema(), data=encode_state(state))


async def folded(log: StoryLog, as_of: int | None = None) -> StoryView:
    """The view by the plain way."""
    memory = MemoryEventLog()
    await log.write_to(memory)
    return await StoryViews(memory, MemoryBlobStore(), milestones=10).at(STORY, as_of or log.version)


@pytest.mark.rule("CX-33", "CX-44")
async def test_view_is_the_same_whichever_way_it_was_made() -> None:
    log = story()
    memory, snapshots = CountingLog(), MemorySnapshotStore()
    await log.write_to(memory)
    for version in range(1, log.version + 1, 7):
        await snapshots.drop(STREAM)
        await snapshots.put(STREAM, snapshot(log, version))
        from_snapshot = StoryViews(memory, MemoryBlobStore(), milestones=10, snapshots=snapshots)
        assert await from_snapshot.at(STORY, log.version) == await folded(log)
    one_by_one = StoryViews(memory, MemoryBlobStore(), milestones=10)
    for as_of in range(3, log.version + 1, 5):
        assert await one_by_one.at(STORY, as_of) == await folded(log, as_of)


@pytest.mark.rule("CX-33")
async def test_next_version_reads_only_what_is_new() -> None:
    log, memory = story(), CountingLog()
    await log.write_to(memory)
    views = StoryViews(memory, MemoryBlobStore(), milestones=10)
    await views.at(STORY, 40)
    memory.asked.clear()
    await views.at(STORY, 43)
    assert memory.asked == [41, 42, 43]
    await views.at(STORY, 40)
    assert memory.asked == [41, 42, 43], "the older view is held still"


@pytest.mark.rule("CX-44")
async def test_snapshot_saves_the_fold_and_milestones_are_looked_up_behind_it() -> None:
    log, memory, snapshots = story(), CountingLog(), MemorySnapshotStore()
    await log.write_to(memory)
    await snapshots.put(STREAM, snapshot(log, log.version - 1))
    views = StoryViews(memory, MemoryBlobStore(), milestones=1, snapshots=snapshots)
    shown = await views.at(STORY, log.version)
    assert shown.milestones == (await folded(log)).milestones[-1:]
    assert min(memory.asked) >= log.version - 1, "one milestone stands at the very end"


@pytest.mark.parametrize(
    "changes",
    [
        {"hash": "0" * 64},
        {"schema": "another form"},
        {"data": b"{}"},
        {"version": 10_000},
        {"data": encode_state(story(until="scope").state)},
    ],
    ids=["another history", "another form", "damaged", "newer than asked", "of another version"],
)
async def test_snapshot_that_the_log_does_not_confirm_is_not_used(changes: dict[str, Any]) -> None:
    log, memory, snapshots = story(), MemoryEventLog(), MemorySnapshotStore()
    await log.write_to(memory)
    await snapshots.put(STREAM, replace(snapshot(log, 20), **changes))
    views = StoryViews(memory, MemoryBlobStore(), milestones=10, snapshots=snapshots)
    assert await views.at(STORY, log.version) == await folded(log)


async def test_store_of_snapshots_that_is_away_costs_time_only() -> None:
    log, memory = story(), MemoryEventLog()
    await log.write_to(memory)
    views = StoryViews(memory, MemoryBlobStore(), milestones=10, snapshots=BrokenSnapshots())
    assert await views.at(STORY, log.version) == await folded(log)


async def test_log_that_does_not_go_on_from_the_held_view_is_folded_anew() -> None:
    first, anew = story(until="planned"), StoryLog(start_ms=9)
    await first.write_to(memory := MemoryEventLog())
    views = StoryViews(memory, MemoryBlobStore(), milestones=10)
    await views.at(STORY, first.version)
    await memory.erase(STREAM, expected=await memory.head(STREAM))
    for _, payload in story(until="build").decoded:
        anew.add(payload)
    await anew.write_to(memory)
    assert await views.at(STORY, anew.version) == await folded(anew)


@pytest.mark.rule("CX-56")
async def test_summary_is_kept_until_there_is_a_newer_one() -> None:
    blobs, memory = MemoryBlobStore(), MemoryEventLog()
    payload = samples()["SummaryRecorded"]
    assert isinstance(payload, SummaryRecorded)
    log = story(until="planned")
    log.add(payload.model_copy(update={"summary_digest": await blobs.put(b"first")})).add(samples()["QuestionRaised"])
    log.add(payload.model_copy(update={"summary_digest": await blobs.put(b"second")}))
    await log.write_to(memory)
    views = StoryViews(memory, blobs, milestones=10)
    told = [(await views.at(STORY, log.version - back)).summaries for back in (3, 2, 1, 0)]
    assert told == [{}, {"": "first"}, {"": "first"}, {"": "second"}]
