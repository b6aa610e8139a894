"""Time limits of tasks: what runs, when it passes, and that nothing else comes of it (LC-131..LC-136)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from fleet.events.codec import decode
from fleet.events.payload import Payload
from fleet.events.story import StoryCancelled, StoryParked, StoryPaused
from fleet.events.task import SlaBreached, TaskTransitioned
from fleet.kernel.clock import MemoryClock
from fleet.kernel.ids import Principal
from fleet.owner.story_owner import SlaWatch, StoryOwner
from fleet.owner.workbench import Workbench
from fleet.story.state import StoryState
from fleet.story.time_limits import time_limits
from tests.support.bench import World
from tests.support.rules import fsm
from tests.support.story_events import DOC_TASK, MERGED, STAGES, TASK, StoryLog, story

HOUR = 3600
WORKFLOW = fsm().task_workflow
PEOPLE = {"architect": ("user:root",), "po": ("user:ana", "user:root"), "qa": ("user:quinn",)}


def in_review(*moves: tuple[str, str, str]) -> StoryLog:
    """The story in BUILD, whose task made these moves; a second passes with each."""
    log = story(only=[s for s in STAGES[: STAGES.index("build") + 1]])
    for before, action, after in moves:
        work = {"evidence": (MERGED,)} if action == "COMMIT_CODE" else {}
        log.task(TASK, before, action, after, **work)
    return log


TO_REVIEW = (
    ("todo", "ASSIGN_TO_DEVELOPER", "implementing"),
    ("implementing", "COMMIT_CODE", "dev_completed"),
    ("dev_completed", "AUTO_ROUTE_TO_ARCHITECT", "pending_arch_review"),
)
CLAIMED = ("pending_arch_review", "CLAIM_REVIEW", "arch_reviewing")
TO_QA = (
    *TO_REVIEW,
    CLAIMED,
    ("arch_reviewing", "APPROVE_DESIGN", "arch_approved"),
    ("arch_approved", "AUTO_ROUTE_TO_QA", "pending_qa"),
)
TO_PO = (
    *TO_QA,
    ("pending_qa", "CLAIM_TESTING", "qa_testing"),
    ("qa_testing", "APPROVE_TESTS", "qa_passed"),
    ("qa_passed", "AUTO_ROUTE_TO_PO", "pending_po_approval"),
)


def _limits(state: StoryState, task_id: str = TASK) -> dict[tuple[str, int], str]:
    return {(x.state, x.limit_s): x.role for x in time_limits(state, WORKFLOW) if x.task_id == task_id}


@pytest.mark.rule("LC-132", "LC-133", "LC-134", "LC-135", "LC-136")
@pytest.mark.parametrize(
    ("moves", "expected"),
    [
        (TO_REVIEW[:1], {("todo", 48 * HOUR): "po"}),
        (
            TO_REVIEW,
            {
                ("pending_arch_review", HOUR): "architect",
                ("pending_arch_review", 2 * HOUR): "architect",
                ("todo", 48 * HOUR): "po",
            },
        ),
        ((*TO_REVIEW, CLAIMED), {("pending_arch_review", 2 * HOUR): "architect", ("todo", 48 * HOUR): "po"}),
        (TO_QA, {("pending_qa", 2 * HOUR): "qa", ("pending_qa", 4 * HOUR): "qa", ("todo", 48 * HOUR): "po"}),
        (TO_PO, {("pending_po_approval", 24 * HOUR): "po", ("todo", 48 * HOUR): "po"}),
    ],
)
def test_limits_run_in_the_states_that_the_workflow_names(
    moves: tuple[tuple[str, str, str], ...], expected: dict[tuple[str, int], str]
):
    assert _limits(in_review(*moves).state) == expected


@pytest.mark.rule("LC-136")
def test_task_whose_dependencies_are_not_done_has_no_limit_yet():
    state = in_review(*TO_REVIEW).state
    tasks = {**state.tasks, DOC_TASK: replace(state.tasks[DOC_TASK])}
    held = replace(tasks[DOC_TASK], task=tasks[DOC_TASK].task.model_copy(update={"depends_on": (TASK,)}))
    assert _limits(state.with_(tasks={**tasks, DOC_TASK: held}), DOC_TASK) == {}
    done = replace(tasks[TASK], state="done", entered_ms={**tasks[TASK].entered_ms, "done": 5 * 10**12})
    (limit,) = time_limits(state.with_(tasks={TASK: done, DOC_TASK: held}), WORKFLOW)
    assert limit.since_ms == 5 * 10**12


@pytest.mark.rule("LC-131", "PL-50")
@pytest.mark.parametrize(
    "event",
    [
        StoryPaused(scope="story", by=Principal("user:ana"), reason="a person looks at it"),
        StoryParked(cause="operator", detail="a person looks at it"),
        StoryCancelled(reason="nobody wants it any more"),
    ],
)
def test_story_that_rests_has_no_limits(event: Payload):
    log = in_review(*TO_REVIEW)
    assert _limits(log.state)
    log.add(event)
    assert _limits(log.state) == {}


async def _watched(log: StoryLog) -> tuple[World, Workbench, MemoryClock]:
    clock = MemoryClock(now_ms=log.state.updated_ms)
    world = World(clock=clock)
    await log.write_to(world.log)

    def holders(role: str, project_id: str) -> tuple[Principal, ...]:
        return tuple(map(Principal, PEOPLE[role])) if project_id == "pr-default" else ()

    return world, replace(await world.bench(), holders=holders), clock


async def _pass(clock: MemoryClock, seconds: float) -> None:
    for _ in range(int(seconds / 60)):
        clock.advance(60)
        for _ in range(10):
            await asyncio.sleep(0)


async def _breaches(world: World) -> list[SlaBreached]:
    found = [decode(event) for event in await world.events()]
    return [one for one in found if isinstance(one, SlaBreached)]


@pytest.mark.rule("LC-131", "LC-133")
async def test_each_limit_that_passes_is_recorded_once_and_moves_nothing():
    world, bench, clock = await _watched(in_review(*TO_REVIEW))
    before = bench.state.tasks[TASK].state
    watch = asyncio.create_task(SlaWatch(bench).run())
    await _pass(clock, HOUR - 120)
    assert await _breaches(world) == []
    await _pass(clock, 240)
    (wait,) = await _breaches(world)
    assert (wait.subject.id, wait.state, wait.limit_s) == (TASK, "pending_arch_review", HOUR)
    assert HOUR <= wait.elapsed_s <= HOUR + 180
    assert wait.notified == ("user:root", "user:ana")
    await _pass(clock, 2 * HOUR)
    assert [one.limit_s for one in await _breaches(world)] == [HOUR, 2 * HOUR]
    assert (bench.state.tasks[TASK].state, bench.state.tasks[TASK].breaches) == (before, 2)
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)


@pytest.mark.rule("LC-131", "PL-48")
async def test_next_owner_does_not_record_a_breach_again_and_a_second_visit_is_a_breach_of_its_own():
    world, bench, clock = await _watched(in_review(*TO_REVIEW))
    for owner in (bench, replace(await world.bench(), holders=bench.holders)):
        await owner.journal.load()
        watch = asyncio.create_task(SlaWatch(owner).run())
        await _pass(clock, HOUR + 120)
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
    assert [one.limit_s for one in await _breaches(world)] == [HOUR, 2 * HOUR]
    rest = await world.bench()
    for before, action, after in (
        CLAIMED,
        ("arch_reviewing", "REJECT_DESIGN", "arch_rejected"),
        ("arch_rejected", "REVISE_CODE", "implementing"),
        *TO_REVIEW[1:],
    ):
        moved: dict[str, Any] = {
            "task_id": TASK,
            "from": before,
            "action": action,
            "to": after,
            "actor_type": "agent",
            "principal": "agent:architect-001",
            "as_role": "architect",
        }
        await rest.journal.record(f"move/{action}", TaskTransitioned.model_validate(moved))
    watch = asyncio.create_task(SlaWatch(rest).run())
    await _pass(clock, HOUR + 120)
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)
    assert [one.limit_s for one in await _breaches(world)] == [HOUR, 2 * HOUR, HOUR]


@pytest.mark.rule("LC-138")
def test_time_in_each_state_is_added_up_over_all_visits():
    again = (
        CLAIMED,
        ("arch_reviewing", "REJECT_DESIGN", "arch_rejected"),
        ("arch_rejected", "REVISE_CODE", "implementing"),
    )
    log = in_review(*TO_REVIEW, *again, *TO_REVIEW[1:])
    task = log.state.tasks[TASK]
    # A second passes with each append: two visits to implementing are two seconds.
    assert (task.stayed_ms["implementing"], task.stayed_ms["pending_arch_review"]) == (2000, 1000)
    assert task.entered_ms["pending_arch_review"] == log.events[-1].ts_ms


@pytest.mark.rule("LC-131", "LC-72")
async def test_owner_of_a_story_that_waits_for_a_person_records_the_breach_and_goes_on_waiting():
    world, bench, clock = await _watched(in_review(*TO_PO))
    owner = StoryOwner(bench)
    running = asyncio.create_task(owner.run())
    await _pass(clock, 25 * HOUR)
    assert [(one.state, one.limit_s) for one in await _breaches(world)] == [("pending_po_approval", 24 * HOUR)]
    assert bench.state.tasks[TASK].state == "pending_po_approval"
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
