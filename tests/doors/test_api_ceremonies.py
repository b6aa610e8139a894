"""Doors to reviews of stories that nobody works on yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fleet.owner.shard import CouncilShard
from fleet.projects.brief_owners import BriefOwners
from tests.support.bench import STORY_TEXT, ScriptedAgents
from tests.support.tool_front import ROOT, ToolFront, keyed, tool_front
from tests.support.world import World

CEREMONIES = "/api/ceremonies"
SAID = {"feedback": "small and clear", "risks": [], "questions": ["Which alphabet?"], "plan": [], "points": 3}


@pytest.mark.door(
    "POST /api/ceremonies",
    "GET /api/ceremonies/{ceremony_id}",
    "POST /api/ceremonies/{ceremony_id}/stories",
    "POST /api/ceremonies/{ceremony_id}/cancel",
)
def test_review_is_prepared_and_given_up(world: World) -> None:
    first, second = world.create(), world.create()
    made = world.post(CEREMONIES, {"story_ids": [first]}, status=201)
    assert (made["status"], made["councils"]) == ("DRAFT", ["architect", "qa", "devops"])
    one = f"{CEREMONIES}/{made['ceremony_id']}"
    world.post(f"{one}/stories", {"story_ids": [first, second]})
    shown = world.get(one)
    assert {story["story_id"]: story["result"] for story in shown["stories"]} == {first: "PENDING", second: "PENDING"}
    over = world.post(f"{one}/cancel", {"reason": "nobody has time today"})
    assert (over["status"], over["reason"]) == ("CANCELLED", "nobody has time today")


@asynccontextmanager
async def front() -> AsyncGenerator[ToolFront]:
    """A front whose commands on projects are carried out by an owner with a model."""
    async with tool_front() as at:
        await at.lose_owner()
        owner, world = "council:0/b1", at.world
        projects = world.project_owner(owner, with_model=True, agents=ScriptedAgents(lambda _: SAID))
        shard = CouncilShard(
            name="council:0",
            incarnation="b1",
            log=world.log,
            leases=world.leases,
            inbox=world.inbox,
            clock=world.clock,
            make_bench=world.bench,
            commands=world.commands,
            sweep_s=0.2,
            projects=BriefOwners(projects, world.platform_owner(owner)),
        )
        task = asyncio.create_task(shard.run())
        try:
            yield at
        finally:
            await shard.drain()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def told(world: World, at: ToolFront, path: str, body: dict[str, Any], *, number: int) -> Any:
    """The answer to a request of the local user, which went well."""
    answer = await at.client.post(path, json=body, headers=keyed(number, ROOT))
    world.heard(answer)
    return answer.json()


async def reviewed(at: ToolFront, one: str) -> Any:
    """The review once every council has said what it thinks, and how much each story is."""
    async with asyncio.timeout(60):
        while True:
            shown = (await at.client.get(one, headers=ROOT)).json()
            if shown["status"] == "REVIEWING" and all(story["estimate"] for story in shown["stories"]):
                return shown
            await asyncio.sleep(0.1)


@pytest.mark.door(
    "POST /api/ceremonies/{ceremony_id}/start",
    "POST /api/ceremonies/{ceremony_id}/stories/{story_id}/approve",
    "POST /api/ceremonies/{ceremony_id}/stories/{story_id}/reject",
    "POST /api/ceremonies/{ceremony_id}/complete",
    stand_in="a front and a project owner with scripted agents in one process: the packaged policies name no planner",
)
async def test_stories_are_reviewed_and_decided(world: World) -> None:
    async with front() as at:
        stories = "/api/planner/stories"
        good, bad = [(await told(world, at, stories, STORY_TEXT, number=n))["story_id"] for n in (1, 2)]
        made = await told(world, at, CEREMONIES, {"story_ids": [good, bad]}, number=3)
        one = f"{CEREMONIES}/{made['ceremony_id']}"
        assert (await told(world, at, f"{one}/start", {}, number=4))["status"] == "IN_PROGRESS"
        shown = await reviewed(at, one)
        assert [review["role"] for review in shown["stories"][0]["reviews"]] == ["architect", "qa", "devops"]
        assert shown["stories"][0]["estimate"]["points"] == 3
        yes, no = {"po_notes": "wanted before the sale"}, {"reason": "it is too early for this"}
        await told(world, at, f"{one}/stories/{good}/approve", yes, number=5)
        decided = await told(world, at, f"{one}/stories/{bad}/reject", no, number=6)
        results = {story["story_id"]: story["result"] for story in decided["stories"]}
        assert results == {good: "APPROVED", bad: "REJECTED"}
        assert (await told(world, at, f"{one}/complete", {}, number=7))["status"] == "COMPLETED"
