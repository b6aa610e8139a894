"""Every step of a story goes through the policy: it is refused, waits for a person, or names its rule (RT-30)."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from fleet.events.codec import decode
from fleet.events.step import ToolDenied
from fleet.events.story import StoryParked
from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import ApprovalRequired, PolicyDenied
from fleet.kernel.ids import Principal, StreamId
from fleet.log.port import Command
from fleet.owner.journal.journal import Journal
from fleet.owner.journal.steps import Work
from fleet.owner.story_owner import StoryOwner
from fleet.owner.workbench import seat
from fleet.story.plan import plan, waiting_for
from tests.support.bench import World
from tests.support.rules import fsm, step_policy
from tests.support.stores import eventually
from tests.support.story_events import STORY, T0, story

ASK = json.dumps(
    {
        "id": "branches-of-the-fleet",
        "effect": "ask",
        "origin": "product",
        "roles": ["devops"],
        "calls": ["git.push_branch"],
        "when": {"branch": {"matches": ["fleet/*"]}},
        "reason": "every branch is looked at",
    }
)
GATE = "tool:git.push_branch"
PUBLISH = Work(seat=seat("devops"), tool="git", op="push_branch", args={"branch": "fleet/one", "commit": "0a" * 20})
ROOT = Principal("user:root")


async def world_of(*rules: str) -> World:
    world = World(clock=MemoryClock(T0 + 600_000), policy=step_policy(*rules))
    await story(until="base").write_to(world.log)
    return world


async def push(journal: Journal) -> dict[str, Any]:
    async def send() -> dict[str, Any]:
        return {"sent": True}

    return await journal.act("publish", dict(PUBLISH.args), PUBLISH, send)


async def told(world: World, name: str, body: dict[str, Any], *, who: Principal = ROOT) -> None:
    number = len(await world.events())
    command = Command(f"{who}/k{number}", StreamId.of_story(STORY), name, who, body)  # pyright: ignore[reportArgumentType]
    await world.commands.handle(await world.bench(), command)


@pytest.mark.rule("RT-31")
async def test_step_names_the_rule_that_let_it_through():
    world = await world_of()
    journal = await world.journal()
    assert await push(journal) == {"sent": True}
    started = journal.state.steps["publish"].started
    assert (started.policy.rule_id, started.policy.digest) == ("publish", world.policy.policy.digest)
    assert started.approval_id is None


@pytest.mark.rule("RT-30", "RT-31")
async def test_step_that_no_rule_lets_through_never_starts_and_the_refusal_is_on_record():
    world = await world_of()
    journal = await world.journal()
    work = Work(seat=seat("devops"), tool="git", op="push_branch", args={"branch": "main"})

    async def send() -> dict[str, Any]:
        raise AssertionError("it was sent")

    for _ in range(2):
        with pytest.raises(PolicyDenied):
            await journal.act("publish", {"branch": "main"}, work, send)
        await journal.record(f"note/{journal.state.version}", StoryParked(cause="stuck", detail="x"))
    denied = [decode(e) for e in await world.events() if e.type == "ToolDenied"]
    assert len(denied) == 2
    assert isinstance(denied[0], ToolDenied)
    assert (denied[0].tool, denied[0].op, denied[0].as_role) == ("git", "push_branch", "devops")
    assert "publish" not in journal.state.steps


@pytest.mark.rule("RT-33", "RT-34", "LC-71", "LC-72")
async def test_step_that_needs_a_person_waits_and_goes_on_with_the_recorded_yes():
    world = await world_of(ASK)
    journal = await world.journal()
    for _ in range(2):
        with pytest.raises(ApprovalRequired):
            await push(journal)
    (approval,) = [a for a in journal.state.approvals.values() if a.request.gate == GATE]
    request = approval.request
    assert (request.role, request.actor, request.subject.kind) == ("architect", "human", "request")
    assert request.expires_at == world.clock.now_ms() + 3_600_000
    card = json.loads(await world.blobs.get(request.card_digest))
    assert (card["call"]["op"], card["call"]["args"]["branch"]) == ("push_branch", "fleet/one")
    assert card["call"]["preview"]["outcome"] == "none"
    now_ms = world.clock.now_ms()
    assert plan(journal.state, fsm(), now_ms=now_ms) == ()
    assert f"gate {GATE} waits for role architect" in (waiting_for(journal.state, fsm(), now_ms=now_ms) or "")
    with pytest.raises(PolicyDenied):
        await told(world, "approve", {"gate": GATE}, who=Principal("user:ana"))
    await told(world, "approve", {"gate": GATE})
    await journal.load()
    assert plan(journal.state, fsm(), now_ms=now_ms)
    assert await push(journal) == {"sent": True}
    assert journal.state.steps["publish"].started.approval_id == request.approval_id


@pytest.mark.rule("RT-33", "LC-71")
async def test_yes_is_over_after_fifteen_minutes():
    world = await world_of(ASK)
    journal = await world.journal()
    with pytest.raises(ApprovalRequired):
        await push(journal)
    await told(world, "approve", {"gate": GATE})
    assert isinstance(world.clock, MemoryClock)
    world.clock.advance(901)
    await journal.load()
    with pytest.raises(ApprovalRequired):
        await push(journal)
    assert [a.request.attempt for a in journal.state.approvals.values() if a.request.gate == GATE] == [1, 2]


async def test_no_of_a_person_refuses_the_step():
    world = await world_of(ASK)
    journal = await world.journal()
    with pytest.raises(ApprovalRequired):
        await push(journal)
    await told(world, "reject", {"gate": GATE, "reason": "not before Monday"})
    await journal.load()
    with pytest.raises(PolicyDenied) as refused:
        await push(journal)
    assert refused.value.details["rule_id"] == "approval_rejected"


@pytest.mark.rule("LC-73")
@pytest.mark.parametrize("most", [3, 1])
async def test_request_that_nobody_answers_is_made_again_until_the_limit_parks_the_story(most: int):
    world = await world_of(ASK)
    limits = fsm().limits.model_copy(update={"expiries_before_park": most})
    world.policy = replace(world.policy, fsm=fsm().model_copy(update={"limits": limits}))
    journal = await world.journal()
    assert isinstance(world.clock, MemoryClock)
    for expected in range(1, most + 1):
        with pytest.raises(ApprovalRequired):
            await push(journal)
        requests = [a for a in journal.state.approvals.values() if a.request.gate == GATE]
        assert len(requests) == expected
        assert journal.state.disposition == "active"
        world.clock.advance(3601)
    with pytest.raises(ApprovalRequired):
        await push(journal)
    assert journal.state.park is not None
    assert journal.state.park.cause == "approval_unanswered"
    assert {a.status for a in journal.state.approvals.values() if a.request.gate == GATE} == {"expired"}
    await told(world, "unpark", {"note": "somebody is back"})
    await journal.load()
    with pytest.raises(ApprovalRequired):
        await push(journal)
    assert journal.state.disposition == "active"


@pytest.mark.rule("RT-34")
async def test_owner_waits_for_the_answer_and_wakes_when_the_request_expires():
    world = await world_of(ASK)
    bench = await world.bench()
    with pytest.raises(ApprovalRequired):
        await push(bench.journal)
    version, clock = bench.state.version, world.clock
    assert isinstance(clock, MemoryClock)
    running = asyncio.create_task(StoryOwner(bench).run())
    try:
        # The work, and beside it the look at how long tasks take.
        assert await eventually(lambda: clock.sleepers == 2, within_s=60)
        assert bench.state.version == version
        clock.advance(3601)
        assert await eventually(lambda: bench.state.version > version, within_s=60)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
