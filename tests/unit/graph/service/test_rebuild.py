"""A projection is built beside the active one and takes its place, over the twins in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fleet.events.codec import encode
from fleet.events.envelope import GENESIS_HASH, NewEvent
from fleet.graph.batch import NodeKey
from fleet.graph.changes import Cursor, NodeChange
from fleet.graph.memory.graph import MemoryGraph
from fleet.graph.port import DecisionGraph
from fleet.graph.projection import Comparison, ProjectionState, Spare
from fleet.graph.schema import PROJECTION_VERSION
from fleet.graph.service.rebuild import ask_for_rebuild
from fleet.kernel.errors import ConfigError, LogRegressed, StoreUnavailable
from fleet.log.memory import MemoryEventLog
from fleet.log.port import MAX_ATTEMPTS
from tests.support.projection import CREATED, MOVED, OTHER, STORY, Projections, append, running
from tests.support.stores import eventually


async def filled() -> Projections:
    """Two streams, projected."""
    world = Projections()
    await append(world.log, STORY, CREATED, MOVED)
    await append(world.log, OTHER, CREATED)
    await world.projector().sweep()
    return world


@pytest.mark.rule("GR-7")
async def test_rebuild_equals_the_live_graph_takes_its_place_and_drops_it() -> None:
    world = await filled()
    before = await world.graph.digest()
    await world.projector().ask_for_rebuild()
    assert (await world.graph.projection()).is_rebuild_wanted
    await world.rebuilt()
    assert await world.graph.projection() == ProjectionState(
        active=2, wanted=2, spare=Spare.EMPTY, comparison=Comparison.EQUAL
    )
    assert await world.graph.digest() == before
    assert await world.graph.cursors(projection=1) == {}
    await append(world.log, STORY, MOVED)
    await world.projector().sweep()
    assert (await world.graph.cursor(STORY)).version == 3


@pytest.mark.rule("GR-7")
async def test_two_rebuilds_in_a_row_use_both_places() -> None:
    world = await filled()
    before = await world.graph.digest()
    for number in (2, 3):
        await world.projector().ask_for_rebuild()
        await world.projector().ask_for_rebuild()
        await world.rebuilt()
        assert (await world.graph.projection()).active == number
        assert await world.graph.digest() == before


@pytest.mark.rule("GR-7")
async def test_graph_that_lost_a_node_is_mended_and_the_difference_is_told() -> None:
    world = await filled()
    before = await world.graph.digest()
    stray = [NodeChange("Task", "tk-stray", {"title": "nobody wrote this"})]
    cursor = await world.graph.cursor(STORY)
    assert await world.graph.apply(STORY, stray, expected=cursor, reached=cursor)
    assert await world.graph.digest() != before
    await world.projector().ask_for_rebuild()
    await world.rebuilt()
    assert (await world.graph.projection()).comparison is Comparison.DIFFERENT
    assert await world.graph.digest() == before


class Crash(BaseException):
    """The process ends; no handler of ours can save it."""


class CrashingGraph(MemoryGraph):
    """Ends the process at the n-th call, before or after its effect."""

    def __init__(self) -> None:
        super().__init__()
        self.left: int | None = None
        self.after = False

    async def _crashing(self, call: Callable[[], Awaitable[Any]]) -> Any:
        if self.left is None:
            return await call()
        self.left -= 1
        if self.left == 0 and not self.after:
            self.left = None
            raise Crash
        found = await call()
        if self.left == 0:
            self.left = None
            raise Crash
        return found

    async def projection(self) -> ProjectionState:
        return await self._crashing(super().projection)

    async def move_projection(self, expected: ProjectionState, to: ProjectionState) -> bool:
        return await self._crashing(lambda: super(CrashingGraph, self).move_projection(expected, to))

    async def clear_spare(self, *, limit: int) -> int:
        return await self._crashing(lambda: super(CrashingGraph, self).clear_spare(limit=limit))

    async def apply(self, *args: Any, **kwargs: Any) -> bool:
        return await self._crashing(lambda: super(CrashingGraph, self).apply(*args, **kwargs))

    async def digest(self, *, projection: int | None = None) -> str:
        return await self._crashing(lambda: super(CrashingGraph, self).digest(projection=projection))


@pytest.mark.rule("GR-7")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_crash_at_any_call_is_mended_by_another_process(after: bool) -> None:
    calls, crashed = 0, True
    while crashed:
        calls += 1
        graph = CrashingGraph()
        world = Projections(graph)
        await append(world.log, STORY, CREATED, MOVED)
        await append(world.log, OTHER, CREATED)
        await world.projector().sweep()
        before = await graph.digest()
        await world.projector().ask_for_rebuild()
        graph.left, graph.after = calls, after
        crashed = False
        try:
            await world.rebuilt()
        except Crash:
            crashed = True
        graph.left = None
        await world.rebuilt()
        state = await graph.projection()
        assert (state.active, state.spare, state.comparison) == (2, Spare.EMPTY, Comparison.EQUAL), calls
        assert await graph.digest() == before
    assert calls > 12, "no crash was seen"


@pytest.mark.rule("GR-7", "GR-9")
async def test_live_graph_goes_on_and_answers_while_another_is_built() -> None:
    world = await filled()
    projector = world.projector()
    await projector.ask_for_rebuild()
    assert await projector.rebuild_step()
    assert (await world.graph.projection()).spare is Spare.BUILDING
    await append(world.log, STORY, MOVED)
    await projector.sweep()
    assert (await world.graph.cursor(STORY)).version == 3
    assert await world.graph.query("decision_trail", {"story_id": "st-a1"}) == []
    await world.rebuilt(projector)
    assert (await world.graph.projection()).comparison is Comparison.EQUAL
    assert (await world.graph.cursor(STORY)).version == 3
    assert await world.graph.query("decision_trail", {"story_id": "st-a1"}) == []


@pytest.mark.rule("GR-7")
async def test_running_projectors_notice_a_wanted_rebuild_and_end_with_one_graph() -> None:
    world = await filled()
    async with running(*(world.projector() for _ in range(3))):
        await ask_for_rebuild(world.log, world.graph)
        for n in range(40):
            if n % 4 == 0:
                await append(world.log, OTHER, MOVED)
            world.clock.advance(1)
            for _ in range(20):
                await asyncio.sleep(0)
        assert await eventually(lambda: _is_settled(world), within_s=60)
    alone = Projections()
    alone.log = world.log
    alone.feed = world.feed
    await alone.projector(world.log).sweep()
    assert await world.graph.digest() == await alone.graph.digest()


async def _is_settled(world: Projections) -> bool:
    world.clock.advance(2)
    status = await world.projector().status()
    return status.state.active == 2 and status.state.spare is Spare.EMPTY and status.lag_total == 0


@pytest.mark.rule("GR-7")
async def test_graph_of_older_rules_is_rebuilt_without_being_asked() -> None:
    world = await filled()
    newer = world.projector(version=PROJECTION_VERSION + 1)
    await world.rebuilt(newer)
    state = await world.graph.projection()
    assert (state.active, state.version) == (2, PROJECTION_VERSION + 1)
    assert not await newer.rebuild_step()
    with pytest.raises(ConfigError, match="start the newer release"):
        await world.projector().sweep()
    async with running(world.projector()) as (task,):
        assert await eventually(task.done, within_s=60)


@pytest.mark.rule("GR-7")
async def test_what_older_rules_began_to_build_is_dropped() -> None:
    world = await filled()
    await world.projector().ask_for_rebuild()
    older = world.projector()
    await older.rebuild_step()
    await world.graph.apply(
        STORY,
        [NodeChange("Task", "tk-old")],
        expected=await world.graph.cursor(STORY, projection=2),
        reached=await world.graph.cursor(STORY),
        projection=2,
    )
    await world.rebuilt(world.projector(version=PROJECTION_VERSION + 1))
    assert NodeKey("Task", "tk-old") not in world.counting.nodes
    assert (await world.graph.projection()).version == PROJECTION_VERSION + 1


@pytest.mark.rule("GR-6", "EV-19")
async def test_accepted_loss_is_followed_by_a_rebuild_of_what_is_left() -> None:
    world, older = await filled(), MemoryEventLog()
    await append(older, STORY, CREATED)
    await append(older, OTHER, CREATED)
    projector = world.projector(older)
    await projector.sweep()
    with pytest.raises(LogRegressed, match="fleet accept-loss"):
        await projector.ask_for_rebuild()
    assert not await projector.rebuild_step(), "the graph would lose what only it still holds"
    await older.accept_loss(STORY)
    await projector.sweep()
    assert await older.refused() == {}, "an accepted loss is not refused again"
    await world.rebuilt(projector)
    state = await world.graph.projection()
    assert (state.active, state.comparison) == (2, Comparison.IMPOSSIBLE)
    assert await projector.set_aside() == {}
    assert (await world.graph.cursor(STORY)).version == 1
    await append(older, STORY, MOVED)
    await projector.sweep()
    assert await projector.lag() == {str(STORY): 0, str(OTHER): 0}


@pytest.mark.rule("GR-6", "GR-7")
async def test_log_that_goes_back_during_a_rebuild_is_refused_and_the_rebuild_starts_anew() -> None:
    world, older = await filled(), MemoryEventLog()
    state = await ask_for_rebuild(world.log, world.graph)
    await world.projector().rebuild_step()
    first = (await world.log.read(STORY, limit=1))[0]
    built = Cursor(first.version, "f" * 64)
    assert await world.graph.apply(STORY, [], expected=Cursor(0, GENESIS_HASH), reached=built, projection=state.wanted)
    await append(older, STORY, CREATED, MOVED)
    assert not await world.projector(older).rebuild_step()
    assert list(await older.refused()) == [STORY]
    assert (await world.graph.projection()).spare is Spare.DIRTY


@pytest.mark.rule("EV-22", "GR-7")
async def test_rebuild_parks_a_poisoned_event_and_takes_the_place_without_it() -> None:
    world = Projections()
    newer = NewEvent(type="StoryCreated", schema=99, body=encode(CREATED).body)
    await append(world.log, STORY, CREATED, newer, MOVED)
    await append(world.log, OTHER, CREATED)
    projector = world.projector()
    for _ in range(MAX_ATTEMPTS - 2):
        await projector.sweep()
    await projector.ask_for_rebuild()
    for _ in range(2):
        assert await projector.rebuild_step()
        assert not await projector.rebuild_step() or (await world.graph.projection()).active == 2
    await world.rebuilt(projector)
    assert len(await world.letters.letters()) == 1
    state = await world.graph.projection()
    assert (state.active, state.comparison) == (2, Comparison.EQUAL)
    assert {str(s): c.version for s, c in (await world.graph.cursors()).items()} == {str(STORY): 1, str(OTHER): 1}


@pytest.mark.rule("GR-7")
async def test_status_says_how_far_the_rebuild_is() -> None:
    world = await filled()
    projector = world.projector()
    await projector.ask_for_rebuild()
    await projector.rebuild_step()
    await append(world.log, STORY, MOVED, MOVED)
    status = await projector.status()
    assert (status.events, status.rebuilt, status.lag_total, status.streams_behind) == (5, 0, 2, 1)
    await world.rebuilt(projector)
    status = await projector.status()
    assert (status.events, status.rebuilt, status.lag_total, status.state.active) == (5, 5, 0, 2)


async def test_rebuild_that_fails_leaves_the_live_graph_alone_and_says_why() -> None:
    class Failing(MemoryGraph):
        async def clear_spare(self, *, limit: int) -> int:
            raise ValueError("a defect")

    graph: DecisionGraph = Failing(ProjectionState(spare=Spare.DIRTY))
    world = Projections(graph)
    projector = world.projector()
    async with running(projector):
        assert await eventually(lambda: projector.rebuild_problem, within_s=60)
        await append(world.log, STORY, CREATED)
        assert await eventually(lambda: _reached(graph, 1), within_s=60)
    assert projector.rebuild_problem == "ValueError: a defect"


async def _reached(graph: DecisionGraph, version: int) -> bool:
    return (await graph.cursor(STORY)).version == version


async def test_request_while_the_graph_is_down_is_store_unavailable() -> None:
    world = await filled()
    world.counting.is_down = True
    with pytest.raises(StoreUnavailable):
        await world.projector().ask_for_rebuild()
