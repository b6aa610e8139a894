"""Figures of context over many stories: read once, and honest about what is away (AP-99)."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from fleet.context.port import PackActivity, PackFigureSource, PackRequest
from fleet.context.service.packs import ContextService, PackTally
from fleet.desk.context.statistics import Away, ContextReport, ContextStatistics, GraphLag
from fleet.events.envelope import Head, StoredEvent
from fleet.graph.changes import Cursor
from fleet.graph.memory.graph import MemoryGraph
from fleet.graph.port import DecisionGraph
from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import StoreUnavailable, ToolTimeout
from fleet.kernel.ids import StoryId, StreamId
from fleet.log.memory import MemoryEventLog
from fleet.report.context_figures import context_figures
from fleet.trees.memory import MemoryBlobStore
from tests.support.context import context_config
from tests.support.story_events import STORY, TASK, StoryLog, created_payload, story
from tests.unit.report.test_context_figures import pack, summary, told

OTHER = StoryId("st-other1")


class CountingLog(MemoryEventLog):
    """Counts the events that were read."""

    def __init__(self) -> None:
        super().__init__()
        self.events_read = 0

    async def read(self, stream: StreamId, *, after: int = 0, limit: int | None = None) -> list[StoredEvent]:
        found = await super().read(stream, after=after, limit=limit)
        self.events_read += len(found)
        return found


class ReplacedLog(MemoryEventLog):
    """A log in whose place another one can be put, as when a backup is restored."""

    def __init__(self) -> None:
        super().__init__()
        self.now = MemoryEventLog()

    async def head(self, stream: StreamId) -> Head:
        return await self.now.head(stream)

    async def read(self, stream: StreamId, *, after: int = 0, limit: int | None = None) -> list[StoredEvent]:
        return await self.now.read(stream, after=after, limit=limit)


class Quiet:
    """A builder of packs that was never asked for one, or does not answer."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    async def activity(self, projects: frozenset[str] | None) -> PackActivity:
        if self.error is not None:
            raise self.error
        return PackActivity(since_ms=5, queries=0, hits=0, p95_ms=None)


class CursorGraph(MemoryGraph):
    """A graph that has reached one version of one story."""

    def __init__(self, version: int) -> None:
        super().__init__()
        self.version = version

    async def cursors(self, *, projection: int | None = None) -> dict[StreamId, Cursor]:
        await super().cursors(projection=projection)
        return {StreamId.of_story(STORY): Cursor(self.version, "h")}


def statistics(
    log: MemoryEventLog, *, graph: DecisionGraph | None = None, builder: PackFigureSource | None = None
) -> ContextStatistics:
    return ContextStatistics(log=log, graph=graph or MemoryGraph(), builder=builder or Quiet())


async def of(found: ContextStatistics, *stories: StoryId) -> ContextReport:
    return await found.of(stories, projects=None)


@pytest.mark.rule("AP-99")
async def test_story_is_read_once_and_then_only_what_is_new() -> None:
    log, own = CountingLog(), told(StoryLog())
    await own.write_to(log)
    found = statistics(log)
    assert (await of(found, STORY)).figures == context_figures(own.events)
    assert log.events_read == own.version
    before = own.version
    own.add(pack(9, phase="TEST"), summary(9))
    await own.write_to(log, after=before)
    assert (await of(found, STORY)).figures == context_figures(own.events)
    assert log.events_read == own.version
    await of(found, STORY)
    assert log.events_read == own.version
    # Another reader, which remembers nothing, says the same.
    assert await of(statistics(log), STORY) == await of(found, STORY)


@pytest.mark.rule("AP-99")
async def test_callers_at_the_same_time_read_a_story_once() -> None:
    log, own = CountingLog(), told(StoryLog())
    await own.write_to(log)
    found = statistics(log)
    first, *others = await asyncio.gather(*(of(found, STORY) for _ in range(5)))
    assert all(one == first for one in others)
    assert log.events_read == own.version


@pytest.mark.rule("AP-99", "EV-19")
async def test_figures_of_a_log_that_became_another_are_those_of_the_other() -> None:
    own = told(StoryLog())
    lengths = (3, own.version, own.version + 4)
    for others in ([pack(n) for n in range(1, length)] for length in lengths):
        log, new = ReplacedLog(), MemoryEventLog()
        await own.write_to(log.now)
        found = statistics(log)
        await of(found, STORY)
        other = StoryLog(start_ms=7).add(created_payload(), *others)
        await other.write_to(new)
        log.now = new
        assert (await of(found, STORY)).figures == context_figures(other.events)


async def test_story_that_is_gone_or_never_was_counts_for_nothing() -> None:
    log = MemoryEventLog()
    await told(StoryLog()).write_to(log)
    report = await of(statistics(log), STORY, OTHER)
    assert report.stories == 1
    assert await log.head(StreamId.of_story(OTHER)) == Head()


@pytest.mark.rule("AP-99")
async def test_lag_is_what_the_record_is_ahead_of_the_graph_in_the_chosen_stories() -> None:
    log, own, other = MemoryEventLog(), told(StoryLog()), told(StoryLog(OTHER))
    await own.write_to(log)
    await other.write_to(log)
    graph = CursorGraph(own.version - 2)
    assert (await of(statistics(log, graph=graph), STORY)).lag == GraphLag(2, 1)
    assert (await of(statistics(log, graph=graph), STORY, OTHER)).lag == GraphLag(2 + other.version, 2)
    graph.version = own.version
    assert (await of(statistics(log, graph=graph), STORY)).lag == GraphLag(0, 0)


@pytest.mark.rule("AP-98", "AP-99")
@pytest.mark.parametrize("error", [StoreUnavailable("actor context cannot be reached"), ToolTimeout("no answer")])
async def test_graph_and_builder_that_are_away_leave_their_figures_out_with_the_reason(error: Exception) -> None:
    log, graph = MemoryEventLog(), MemoryGraph()
    await told(StoryLog()).write_to(log)
    graph.is_down = True
    report = await of(statistics(log, graph=graph, builder=Quiet(error)), STORY)
    assert report.figures.packs
    assert isinstance(report.lag, Away)
    assert report.lag.reason
    assert report.activity == Away(str(error))


@pytest.mark.rule("AP-99", "CX-33")
async def test_builder_tells_hits_and_times_of_the_projects_that_are_asked_for() -> None:
    log, clock = MemoryEventLog(), MemoryClock()
    own = story(until="task")
    await own.write_to(log)
    service = ContextService(log, MemoryBlobStore(), context_config(), clock=clock)
    wanted = PackRequest(story_id=STORY, role="developer", phase="BUILD", as_of=own.version, task_id=TASK)
    for request in (wanted, wanted, wanted, replace(wanted, role="qa")):
        await service.pack(request)
    found = await service.activity(None)
    assert (found.queries, found.hits, found.p95_ms) == (4, 2, 0)
    assert found == await service.activity(frozenset({"pr-default"}))
    hidden = await service.activity(frozenset({"pr-other"}))
    assert (hidden.queries, hidden.hits, hidden.p95_ms) == (0, 0, None)


@pytest.mark.rule("AP-99", "CX-26")
def test_p95_is_the_time_that_ninety_five_of_a_hundred_packs_did_not_exceed() -> None:
    tally = PackTally(since_ms=1)
    for took_ms in range(100, 0, -1):
        tally.gave("pr-a", hit=took_ms > 60, took_ms=took_ms)
    found = tally.activity(None)
    assert (found.p95_ms, found.queries, found.hits) == (95, 100, 40)
    tally.gave("pr-b", hit=False, took_ms=7)
    assert tally.activity(frozenset({"pr-b"})).p95_ms == 7
