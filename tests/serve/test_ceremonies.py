"""Backlog reviews over HTTP (AP-80, PL-60..PL-69)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from fleet.kernel.ids import CommandId, Principal, StreamId
from fleet.log.port import Command
from tests.support.bench import STORY_TEXT, ScriptedAgents
from tests.support.tool_front import DEV, ROOT, ToolFront, keyed, tool_front

CEREMONIES, STORIES = "/api/ceremonies", "/api/planner/stories"
SAID = {"feedback": "small and clear", "risks": [], "questions": ["Which alphabet?"], "plan": [], "points": 3}


@pytest.fixture
async def at() -> AsyncIterator[ToolFront]:
    async with tool_front() as front:
        yield front


async def _sent(at: ToolFront, path: str, body: dict[str, Any], *, number: int, who: Any = ROOT) -> Any:
    return await at.client.post(path, json=body, headers=keyed(number, who))


async def _opened(at: ToolFront) -> tuple[str, str]:
    """The address of a review that is being prepared, and its story."""
    story = (await _sent(at, STORIES, STORY_TEXT, number=900)).json()["story_id"]
    made = await _sent(at, CEREMONIES, {"story_ids": [story]}, number=901)
    assert made.status_code == 201, made.text
    assert (made.json()["status"], made.json()["councils"]) == ("DRAFT", ["architect", "qa", "devops"])
    return f"{CEREMONIES}/{made.json()['ceremony_id']}", story


async def _reviewed(at: ToolFront, url: str) -> None:
    """A shard with a model has had the stories reviewed."""
    outline = [{"title": "Write slugify", "role": "developer", "estimated_hours": 3}]
    agents = ScriptedAgents(lambda request: SAID | ({"plan": outline} if request.role == "qa" else {}))
    owner = at.world.project_owner("council:9/z", with_model=True, agents=agents)
    body = {"ceremony_id": url.rsplit("/", 1)[1]}
    who = Principal("user:root")
    await owner.handle(Command(CommandId(f"{who}/start"), StreamId("project:pr-default"), "start_ceremony", who, body))
    await owner.work()


@pytest.mark.rule("AP-80", "PL-63", "PL-65", "PL-68")
async def test_review_shows_what_councils_said_and_takes_the_decision(at: ToolFront):
    url, story = await _opened(at)
    await _reviewed(at, url)
    assert (await at.client.get(url, headers=DEV)).json()["stories"] == [], "no story of a developer (CX-16)"
    seen = (await at.client.get(url, headers=ROOT)).json()
    (one,) = seen["stories"]
    assert (seen["status"], one["result"], one["estimate"]["points"]) == ("REVIEWING", "PENDING", 3)
    assert [r["role"] for r in one["reviews"]] == ["architect", "qa", "devops"]
    assert one["reviews"][0]["review"]["questions"] == ["Which alphabet?"]
    bare = await _sent(at, f"{url}/stories/{story}/approve", {"po_notes": "ok"}, number=1)
    assert (bare.status_code, bare.json()["code"]) == (422, "invalid_input")
    wanted = {"po_notes": "wanted before the sale"}
    none = await _sent(at, f"{url}/stories/{story}/approve", wanted | {"plan_of": "devops"}, number=5)
    assert (none.status_code, none.json()["code"]) == (422, "invalid_input")
    yes = await _sent(at, f"{url}/stories/{story}/approve", wanted | {"plan_of": "qa"}, number=2)
    assert (yes.json()["stories"][0]["result"], yes.json()["stories"][0]["plan_id"][:3]) == ("APPROVED", "pv-")
    done = await _sent(at, f"{url}/complete", {}, number=3)
    assert (done.status_code, done.json()["status"]) == (200, "COMPLETED")
    late = await _sent(at, f"{url}/cancel", {"reason": "the po is away today"}, number=4)
    assert (late.status_code, late.json()["code"]) == (409, "invalid_transition")


@pytest.mark.rule("AP-80", "PL-61", "PL-64", "PL-66")
async def test_review_is_changed_rejected_and_given_up(at: ToolFront):
    url, story = await _opened(at)
    same = await _sent(at, f"{url}/stories", {"story_ids": [story]}, number=1)
    assert same.json()["status"] == "DRAFT"
    alone = await _sent(at, f"{url}/start", {}, number=2)
    assert (alone.status_code, alone.json()["code"]) == (422, "invalid_input")
    await _reviewed(at, url)
    no = await _sent(at, f"{url}/stories/{story}/reject", {"reason": "it is too early for this"}, number=3)
    assert no.json()["stories"][0]["result"] == "REJECTED"
    over = await _sent(at, f"{url}/cancel", {"reason": "the po is away today"}, number=4)
    assert (over.json()["status"], over.json()["reason"]) == ("CANCELLED", "the po is away today")


@pytest.mark.rule("AP-80", "AP-25", "PL-60")
async def test_what_is_not_there_or_not_allowed_is_refused(at: ToolFront):
    url, story = await _opened(at)
    for path, body in (
        (f"{CEREMONIES}/ce-none1/start", {}),
        (CEREMONIES, {"project_id": "st-none1", "story_ids": [story]}),
        (CEREMONIES, {"project_id": "pr-none1", "story_ids": [story]}),
    ):
        missing = await _sent(at, path, body, number=1)
        assert (missing.status_code, missing.json()["code"]) == (404, "not_found"), path
    denied = await _sent(at, f"{url}/start", {}, number=2, who=DEV)
    assert (denied.status_code, denied.json()["code"]) == (403, "policy_denied")
    unknown = await _sent(at, CEREMONIES, {"story_ids": ["st-none1"]}, number=3)
    assert (unknown.status_code, unknown.json()["code"]) == (422, "invalid_input")
