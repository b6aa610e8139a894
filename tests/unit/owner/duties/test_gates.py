"""Procedures at gates: ask with a card, let the delegate decide, move, go back with a fix task (LC-47, LC-77)."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fleet.events.approval import ApprovalGranted, ApprovalRejected
from fleet.events.codec import decode
from fleet.events.plan import PlanStalled
from fleet.events.story import StoryParked
from fleet.events.workspace import WorkspaceScored
from fleet.graph.memory.graph import MemoryGraph
from fleet.kernel.clock import MemoryClock
from fleet.owner.duties import gates
from fleet.story.intents import DecideGate, ExpireGate, FireTransition, LoopBack, Park, RequestGate
from fleet.story.plan import plan
from tests.support.bench import World
from tests.support.graphs import project
from tests.support.rules import fsm
from tests.support.story_events import (
    CONTENT,
    DELEGATION,
    DOC_TASK,
    MERGED,
    REVIEWER,
    SYSTEM,
    T0,
    TASK,
    StoryLog,
    digest,
    story,
)


async def world_of(log: StoryLog) -> World:
    world = World(clock=MemoryClock(T0 + 600_000))
    await log.write_to(world.log)
    return world


def draft() -> StoryLog:
    return story(only=("created", "scored", "started", "base")).move("BACKLOG", "create_story", "DRAFT")


@pytest.mark.rule("LC-79")
async def test_request_holds_the_card_that_its_decider_sees():
    world = await world_of(draft())
    bench = await world.bench()
    await gates.request_gate(bench, RequestGate(gate="approve_scope", subject=CONTENT))
    (approval,) = bench.state.approvals.values()
    request = approval.request
    assert (request.gate, request.role, request.actor, request.attempt) == ("approve_scope", "po", "human", 1)
    assert request.expires_at == bench.now_ms + 86_400_000
    card = json.loads(await bench.blobs.get(request.card_digest))
    assert (card["gate"], card["subject"], card["story"]["state"]) == ("approve_scope", CONTENT, "DRAFT")


async def test_request_about_an_older_subject_is_not_made():
    world = await world_of(draft())
    bench = await world.bench()
    await gates.request_gate(bench, RequestGate(gate="approve_scope", subject=digest("an older text")))
    assert bench.state.approvals == {}


@pytest.mark.rule("LC-77", "LC-72")
async def test_delegate_decides_and_the_record_says_for_whom():
    world = await world_of(draft())
    bench = await world.bench()
    await gates.request_gate(bench, RequestGate(gate="approve_scope", subject=CONTENT))
    (approval_id,) = bench.state.approvals
    await gates.decide_delegated_gate(bench, DecideGate(gate="approve_scope", approval_id=approval_id))
    grants = [decode(e) for e in await world.events() if e.type == "ApprovalGranted"]
    (granted,) = grants
    assert isinstance(granted, ApprovalGranted)
    assert (granted.principal, granted.delegated, granted.delegation_id) == (REVIEWER, True, DELEGATION)
    assert bench.state.state == "DESIGN"
    assert (await world.events())[-1].actor == REVIEWER


async def test_owner_moves_the_story_once_and_leaves_it_where_a_guard_is_false():
    log = story(until="merged")
    log.events.pop()
    world = await world_of(log)
    bench = await world.bench()
    await gates.fire_transition(bench, FireTransition("build_done"))
    assert bench.state.state == "TEST"
    assert (await world.events())[-1].actor == SYSTEM
    before = bench.state.version
    await gates.fire_transition(bench, FireTransition("qa_passed"))
    assert bench.state.version == before


@pytest.mark.rule("LC-47", "LC-91", "LC-28")
async def test_blocking_tree_goes_back_with_a_task_that_names_the_findings():
    log = story(until="merged")
    scored = log.decoded_payloads("WorkspaceScored")[-1]
    assert isinstance(scored, WorkspaceScored)
    log.add(scored.model_copy(update={"verdict": "block", "score": "40", "reasons": ("lint: 9 errors, 5 allowed",)}))
    world = await world_of(log)
    bench = await world.bench()
    (intent,) = plan(bench.state, fsm(), now_ms=bench.now_ms)
    assert intent == LoopBack(event="reject_test", tree=MERGED)
    await gates.loop_back(bench, intent)
    state = bench.state
    assert (state.state, state.loopbacks) == ("BUILD", {"reject_test": 1})
    fix = next(t for t in state.tasks.values() if t.task.kind == "fix")
    assert "lint: 9 errors, 5 allowed" in fix.task.description
    assert set(fix.task.acceptance_refs) == {a.ac_id for a in state.content.acceptance_criteria}
    moved, added = (await world.events())[-2:]
    assert moved.command_id == added.command_id
    (following,) = plan(state, fsm(), now_ms=bench.now_ms)
    assert type(following).__name__ == "StartTask"


@pytest.mark.rule("LC-73")
async def test_request_that_nobody_answers_expires_and_the_third_in_a_row_parks_the_story():
    world = await world_of(draft())
    bench = await world.bench()
    for attempt in (1, 2, 3):
        await gates.request_gate(bench, RequestGate(gate="approve_scope", subject=CONTENT))
        approval = list(bench.state.approvals.values())[-1]
        assert approval.request.attempt == attempt
        assert bench.state.disposition == "active"
        await gates.expire_gate(bench, ExpireGate(approval_id=approval.request.approval_id))
        assert bench.state.approvals[approval.request.approval_id].status == "expired"
    assert bench.state.park is not None
    assert bench.state.park.cause == "approval_unanswered"
    assert "approve_scope" in bench.state.park.detail


@pytest.mark.rule("LC-73")
async def test_configuration_says_how_many_requests_nobody_may_answer():
    world = await world_of(draft())
    bench = await world.bench()
    limits = fsm().limits.model_copy(update={"expiries_before_park": 1})
    bench = replace(bench, rules=replace(bench.rules, fsm=fsm().model_copy(update={"limits": limits})))
    await gates.request_gate(bench, RequestGate(gate="approve_scope", subject=CONTENT))
    await gates.expire_gate(bench, ExpireGate(approval_id=list(bench.state.approvals)[-1]))
    assert bench.state.park is not None
    assert "nobody answered 1 requests in a row" in bench.state.park.detail


@pytest.mark.rule("LC-73")
async def test_answer_of_a_person_ends_the_row_of_expiries():
    world = await world_of(draft())
    bench = await world.bench()
    for answered in (False, False, True, False, False):
        await gates.request_gate(bench, RequestGate(gate="approve_scope", subject=CONTENT))
        approval_id = list(bench.state.approvals)[-1]
        if answered:
            rejected = ApprovalRejected(
                approval_id=bench.state.approvals[approval_id].request.approval_id,
                principal=REVIEWER,
                as_role="po",
                reason="not like this",
                delegated=False,
            )
            await bench.journal.record(f"no/{approval_id}", rejected)
        else:
            await gates.expire_gate(bench, ExpireGate(approval_id=approval_id))
    assert bench.state.park is None


@pytest.mark.rule("PL-45", "PL-46", "EV-142", "GR-69")
async def test_plan_that_stalls_says_which_task_waits_for_which_dependency_and_why():
    log = story(until="build").task(TASK, "todo", "DISCARD_TASK", "cancelled")
    world = await world_of(log)
    bench = await world.bench()
    (intent,) = plan(bench.state, fsm(), now_ms=bench.now_ms)
    assert isinstance(intent, Park)
    await gates.park_story(bench, intent)
    *_, stalled, parked = [decode(e) for e in await world.events()]
    assert isinstance(stalled, PlanStalled)
    assert [(b.task_id, b.waits_for.id, b.reason) for b in stalled.blockers] == [
        (DOC_TASK, TASK, "dependency is cancelled")
    ]
    assert isinstance(parked, StoryParked)
    assert parked.detail.startswith(f"task {DOC_TASK} waits for {TASK}: dependency is cancelled. ")
    graph = MemoryGraph()
    await project(graph, await world.events())
    blocked = [(key.start.id, key.end.id) for key in graph.relations if key.type == "BLOCKED_BY"]
    assert blocked == [(DOC_TASK, TASK)]
