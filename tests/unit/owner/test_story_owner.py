"""The owner of a story carries out what is owed, waits outages out, and parks what it cannot do."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, cast

import pytest

from fleet.events.codec import decode
from fleet.events.plan import CheckpointSaved
from fleet.events.story import StoryCancelled, StoryClosed, StoryParked
from fleet.forge.port import Commit, FetchedRepository, StagedRepository
from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import (
    BudgetExceeded,
    FleetError,
    LogRegressed,
    ModelUnavailable,
    NondeterministicPlan,
    OutcomeUnknown,
    OwnershipLost,
    RateLimited,
    SandboxUnavailable,
    StoreUnavailable,
    VersionConflict,
)
from fleet.kernel.ids import StreamId
from fleet.owner import story_owner
from fleet.owner.story_owner import StoryOwner
from fleet.owner.workbench import Workbench
from tests.support.bench import World
from tests.support.story_events import STORY, T0, TASK, story


class BrokenForge:
    """Fails with each of these, then with the last one for ever."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors, self.calls = list(errors), 0

    async def stage(self, url: str, ref: str | None = None) -> StagedRepository:
        self.calls += 1
        raise self.errors[min(self.calls, len(self.errors)) - 1]

    async def stage_fetched(self, fetched: FetchedRepository) -> StagedRepository:
        raise AssertionError("nothing is fetched here")

    async def publish(self, url: str, branch: str, commit: Commit, *, expected_old: str | None) -> None:
        raise AssertionError("nothing is published here")


async def bench_of(*errors: BaseException) -> tuple[World, Workbench, BrokenForge]:
    """A started story whose repository cannot be read."""
    world = World(clock=MemoryClock())
    await story(until="started").write_to(world.log)
    forge = BrokenForge(*errors)
    return world, replace(await world.bench(), forge=forge), forge


async def until_parked(world: World, owner: StoryOwner, *, step_s: float = 1) -> Any:
    clock = world.clock
    assert isinstance(clock, MemoryClock)
    task = asyncio.create_task(owner.run())
    try:
        for _ in range(100):
            for _ in range(20):
                await asyncio.sleep(0)
            if task.done():
                return task.result()
            if owner.bench.state.park is not None:
                return owner.bench.state.park
            clock.advance(step_s)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    raise AssertionError("the story was not parked")


@pytest.mark.rule("LC-94")
@pytest.mark.parametrize(
    ("error", "cause", "tries"),
    [
        (OutcomeUnknown("the push may have happened"), "outcome_unknown", 1),
        (NondeterministicPlan("step base/x has another request on record"), "nondeterministic_plan", 1),
        (BudgetExceeded("no tokens are left"), "budget_exhausted", 1),
        (FleetError("something else"), "stuck", 1),
        (VersionConflict("the branch moved"), "stuck", 3),
        (RuntimeError("a defect"), "internal_error", 3),
    ],
)
async def test_work_that_cannot_be_done_parks_the_story_with_its_cause(error: BaseException, cause: str, tries: int):
    world, bench, forge = await bench_of(error)
    park = await until_parked(world, StoryOwner(bench))
    assert (park.cause, forge.calls) == (cause, tries)
    assert str(error) in park.detail


async def test_park_names_the_step_that_it_is_about():
    world, bench, _ = await bench_of(OutcomeUnknown("it may have happened", step_id="deploy/1"))
    await until_parked(world, StoryOwner(bench))
    (parked,) = [p for p in map(decode, await world.events()) if isinstance(p, StoryParked)]
    assert parked.ref == "deploy/1"


@pytest.mark.rule("LC-94")
async def test_decider_that_raises_parks_its_story_after_three_tries():
    world, bench, _ = await bench_of(FleetError("nobody gets so far"))

    class Broken:
        """Rules that cannot be applied; `looked` counts how often somebody planned by them."""

        looked = 0

        def __getattr__(self, name: str) -> Any:
            # Time limits are looked at beside the work.
            type(self).looked += name != "task_workflow"
            raise KeyError(name)

    await story(until="base").write_to(world.log, after=bench.state.version)
    await bench.journal.load()
    owner = StoryOwner(replace(bench, rules=replace(bench.rules, fsm=cast(Any, Broken()))))
    park = await until_parked(world, owner)
    assert (park.cause, Broken.looked) == ("internal_error", 3)
    assert "planning failed 3 times with KeyError" in park.detail


async def test_log_that_went_back_ends_the_owner_and_parks_nothing():
    world, bench, _ = await bench_of(LogRegressed("the log ends before version 9"))
    with pytest.raises(LogRegressed):
        await until_parked(world, StoryOwner(bench))
    assert "StoryParked" not in await world.types()


async def test_cancelled_story_needs_no_owner():
    world, bench, _ = await bench_of(FleetError("nobody gets so far"))
    await bench.journal.record("stop", StoryCancelled(reason="nobody needs it"), closes=True)
    await asyncio.wait_for(StoryOwner(bench).run(), timeout=60)
    assert (await world.types())[-1] == "StoryCancelled"


async def test_work_that_changes_nothing_parks_the_story_instead_of_being_done_for_ever(
    monkeypatch: pytest.MonkeyPatch,
):
    """A procedure that records nothing is a defect of ours, which no port can make: the table of them has one here."""
    world, bench, forge = await bench_of(FleetError("nobody gets so far"))
    calls = 0

    async def nothing(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            pytest.fail("the work is done again")

    for intent in list(story_owner._PROCEDURES):  # noqa: SLF001
        monkeypatch.setitem(cast("dict[Any, Any]", story_owner._PROCEDURES), intent, nothing)  # noqa: SLF001
    park = await until_parked(world, StoryOwner(bench))

    assert (park.cause, "changed nothing" in park.detail, calls, forge.calls) == ("stuck", True, 1, 0)


async def test_outage_is_tried_three_times_before_the_story_parks():
    world, bench, forge = await bench_of(SandboxUnavailable("no sandbox answers"))
    park = await until_parked(world, StoryOwner(bench))
    assert (park.cause, forge.calls) == ("stuck", 3)


@pytest.mark.rule("MB-28")
async def test_engines_without_room_never_park_a_story_however_long_they_are_busy():
    world, bench, forge = await bench_of(RateLimited("this minute is used up", queued=True, retry_after_s=5))
    owner = asyncio.create_task(StoryOwner(bench).run())
    assert isinstance(world.clock, MemoryClock)
    for _ in range(100):
        for _ in range(20):
            await asyncio.sleep(0)
        world.clock.advance(1)
    owner.cancel()
    await asyncio.gather(owner, return_exceptions=True)
    assert forge.calls == 20
    assert bench.state.park is None


async def test_owner_comes_again_when_the_error_says_so():
    world, bench, forge = await bench_of(ModelUnavailable("its circuit is open", retry_after_s=30))
    park = await until_parked(world, StoryOwner(bench))
    assert (park.cause, forge.calls, world.clock.monotonic_ms() // 1000) == ("stuck", 3, 60)


@pytest.mark.rule("EV-23")
@pytest.mark.parametrize("error", [StoreUnavailable("the log does not answer"), OwnershipLost("a higher epoch exists")])
async def test_outage_of_the_log_and_loss_of_the_story_end_the_owner_and_park_nothing(error: FleetError):
    world, bench, _ = await bench_of(error)
    with pytest.raises(type(error)):
        await until_parked(world, StoryOwner(bench))
    assert "StoryParked" not in await world.types()


@pytest.mark.rule("GL-19")
async def test_owner_of_an_older_epoch_ends_without_parking():
    world, bench, _ = await bench_of(FleetError("whatever"))
    world.log.raise_epoch(StreamId.of_story(STORY))
    with pytest.raises(OwnershipLost):
        await until_parked(world, StoryOwner(bench))
    assert "StoryParked" not in await world.types()


async def test_unknown_repository_parks_with_its_message():
    world = World(clock=MemoryClock())
    await story(until="started").write_to(world.log)
    park = await until_parked(world, StoryOwner(await world.bench()))
    assert (park.cause, "/srv/text does not exist" in park.detail) == ("stuck", True)


async def test_owner_waits_until_it_is_woken_and_ends_with_the_story():
    world = World(clock=MemoryClock())
    await story(until="scored").write_to(world.log)
    bench = await world.bench()
    owner = StoryOwner(bench)
    task = asyncio.create_task(owner.run())
    for _ in range(20):
        await asyncio.sleep(0)
    assert (task.done(), owner.is_over) == (False, False)
    await bench.journal.record("close", StoryClosed(final_state="DONE", report_id=None), closes=True)
    owner.wake()
    await asyncio.wait_for(task, timeout=60)
    assert owner.is_over


async def test_parked_story_is_left_alone():
    world, bench, forge = await bench_of(FleetError("whatever"))
    await bench.journal.record("park/1", StoryParked(cause="stuck", detail="nothing moved"))
    owner = StoryOwner(bench)
    task = asyncio.create_task(owner.run())
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert forge.calls == 0
    assert (await world.types()).count("StoryParked") == 1


@pytest.mark.rule("LC-73", "LC-72")
async def test_owner_asks_again_by_itself_when_nobody_answers_and_parks_after_the_third_time():
    # So late that the delegations of the run are over: a person has to answer.
    clock = MemoryClock(T0 + 60 * 86_400_000)
    world = World(clock=clock)
    log = story(only=("created", "scored", "started", "base")).move("BACKLOG", "create_story", "DRAFT")
    await log.write_to(world.log)
    owner = StoryOwner(await world.bench())
    park = await until_parked(world, owner, step_s=3600)
    types = [t for t in await world.types() if t.startswith("Approval")]
    assert types == ["ApprovalRequested", "ApprovalExpired"] * 3
    assert park.cause == "approval_unanswered"


@pytest.mark.rule("PL-47")
@pytest.mark.parametrize(("hours", "saved"), [(2, 1), (0, 0)])
async def test_tree_that_was_worked_on_for_half_an_hour_is_a_checkpoint_before_the_work_goes_on(hours: int, saved: int):
    log = story(until="build").task(TASK, "todo", "ASSIGN_TO_DEVELOPER", "implementing")
    world = World(clock=MemoryClock(log.events[-1].ts_ms + hours * 3_600_000))
    await log.write_to(world.log)
    # Nobody answers for the seats of its council, so that the story parks.
    await until_parked(world, StoryOwner(await world.bench()))
    points = [p for p in map(decode, await world.events()) if isinstance(p, CheckpointSaved)]
    assert [(p.note, p.task_states[TASK]) for p in points] == [("after 1800 s of work", "implementing")] * saved
