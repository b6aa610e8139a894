"""The gates inbox: everything a person needs to decide, the decision, and asking again (AP-74..AP-76, LC-79)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from fleet.config.settings import ServeSettings
from fleet.events.approval import ApprovalRequested, Subject
from fleet.events.story import StoryPaused
from fleet.kernel.clock import SystemClock
from fleet.kernel.ids import EntityId
from fleet.owner.shard import CouncilShard
from serve_apps.routes.gateway import build_gateway
from tests.support.bench import World
from tests.support.front import front_parts
from tests.support.rules import files
from tests.support.story_events import CONTENT, MERGED, STORY, SYSTEM, StoryLog, digest, story
from tests.support.tool_front import ARCHIE, DEV, QUINN, REGISTRY, ROOT, keyed

ASKED = EntityId("ap-asked1")


def _asked(log: StoryLog, gate: str, role: str, subject: Subject) -> StoryLog:
    return log.add(
        ApprovalRequested(
            approval_id=ASKED,
            gate=gate,
            role=role,
            actor="human",
            subject=subject,
            risk="low",
            expires_at=SystemClock().now_ms() + 3_600_000,
            attempt=1,
            card_digest=digest("card"),
            requested_by=SYSTEM,
        )
    )


def _draft() -> StoryLog:
    """A story whose scope waits; it is paused, so that no work of its own comes between."""
    log = story(only=("created", "scored", "started", "base")).move("BACKLOG", "create_story", "DRAFT")
    _asked(log, "approve_scope", "po", Subject(kind="content", id=STORY, digest=CONTENT))
    return log.add(StoryPaused(scope="story", by=SYSTEM))


def _in_test() -> StoryLog:
    log = story(until="merged")
    _asked(log, "qa_passed", "qa", Subject(kind="tree", id=STORY, digest=MERGED))
    return log.add(StoryPaused(scope="story", by=SYSTEM))


@dataclass
class Inbox:
    world: World
    client: httpx2.AsyncClient

    async def get(self, path: str, who: dict[str, str] = ROOT, **params: Any) -> Any:
        response = await self.client.get(f"/api/approvals{path}", headers=who, params=params)
        assert response.status_code == 200, response.text
        return response.json()

    async def post(self, path: str, body: Any, number: int, who: dict[str, str] = ROOT) -> httpx2.Response:
        return await self.client.post(f"/api/approvals{path}", json=body, headers=keyed(number, who))


@asynccontextmanager
async def inbox(log: StoryLog) -> AsyncIterator[Inbox]:
    world = World(clock=SystemClock())
    await world.blobs.put(b"card")
    await log.write_to(world.log)
    shard = CouncilShard(
        name="council:0",
        incarnation="a1",
        log=world.log,
        leases=world.leases,
        inbox=world.inbox,
        clock=world.clock,
        make_bench=world.bench,
        commands=world.commands,
    )
    task = asyncio.create_task(shard.run())
    app = build_gateway(world.desk, REGISTRY, files().load("serve.yaml", ServeSettings), parts=front_parts(world))
    try:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://fleet") as client:
            yield Inbox(world, client)
    finally:
        await shard.drain()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.rule("AP-74", "LC-79")
async def test_inbox_holds_what_waits_and_what_its_decider_needs():
    async with inbox(_draft()) as at:
        (card,) = (await at.get(""))["items"]
        assert (card["approval_id"], card["gate"], card["role"], card["status"]) == (
            ASKED,
            "approve_scope",
            "po",
            "requested",
        )
        assert card["story"]["story_id"] == STORY
        assert card["subject"] == {"kind": "content", "id": STORY, "digest": CONTENT}
        assert card["can_decide"]
        assert card["cost"]["tokens"] >= 0
        assert card["requested_at"] < card["expires_at"]
        assert not (await at.get("", ARCHIE))["items"][0]["can_decide"]
        assert (await at.get("", DEV))["items"] == []
        assert (await at.get("", role="qa"))["items"] == []
        assert (await at.get("", status="granted"))["items"] == []
        assert await at.get(f"/{ASKED}") == card
        missing = await at.client.get("/api/approvals/ap-nobody1", headers=ROOT)
        assert (missing.status_code, missing.json()["code"]) == (404, "not_found")


@pytest.mark.rule("AP-74", "LC-79")
async def test_card_about_a_tree_holds_tests_verdict_councils_and_the_trees_to_compare():
    async with inbox(_in_test()) as at:
        (card,) = (await at.get("", role="qa"))["items"]
        assert card["diff"]["new"] == MERGED
        assert card["diff"]["old"] not in (None, MERGED)
        assert card["tests"]["unit"]["passed"] > 0
        assert card["verdict"]["verdict"] in ("pass", "warn", "block")
        assert card["councils"]
        votes = card["councils"][-1]["council"]["candidates"]
        assert any(candidate["won"] for candidate in votes)
        assert card["cost"]["tokens"] > 0


@pytest.mark.rule("AP-75", "LC-78")
async def test_yes_moves_the_story_and_a_second_word_is_told_the_first():
    async with inbox(_draft()) as at:
        refused = await at.post(f"/{ASKED}/grant", {"notes": "go on"}, 1, ARCHIE)
        assert (refused.status_code, refused.json()["code"]) == (403, "policy_denied")
        granted = await at.post(f"/{ASKED}/grant", {"notes": "go on"}, 2)
        assert (granted.status_code, granted.json()["state"]) == (200, "DESIGN"), granted.text
        late = await at.post(f"/{ASKED}/reject", {"reason": "I see it differently"}, 3)
        assert (late.status_code, late.json()["code"]) == (409, "version_conflict")
        assert (await at.get(""))["items"] == []
        (card,) = [c for c in (await at.get("", status="granted"))["items"] if c["approval_id"] == ASKED]
        assert (card["decided_by"], card["notes"]) == ("user:root", "go on")


@pytest.mark.rule("AP-75", "AP-76", "LC-74", "LC-99")
@pytest.mark.parametrize("back", [{"back": "reject_test"}, {}], ids=["named", "the only way"])
async def test_no_needs_a_reason_takes_the_story_back_and_the_gate_can_be_asked_for_again(back: dict[str, str]):
    async with inbox(_in_test()) as at:
        short = await at.post(f"/{ASKED}/reject", {"reason": "no"}, 1, QUINN)
        assert (short.status_code, short.json()["code"]) == (422, "invalid_input")
        wrong = await at.post(f"/{ASKED}/reject", {"reason": "the slug is empty", "back": "docs_ready"}, 2, QUINN)
        assert wrong.json()["allowed"] == ["reject_test"]
        no = await at.post(f"/{ASKED}/reject", {"reason": "the slug is empty", **back}, 3, QUINN)
        assert (no.status_code, no.json()["state"]) == (200, "BUILD"), no.text
        told = (await at.client.get(f"/api/planner/stories/{STORY}", headers=ROOT)).json()
        assert [t["title"] for t in told["tasks"]][-1].startswith("Mend the findings")
        assert no.json()["tasks"] == [], "qa has no task in it any more (CX-13)"
        (card,) = (await at.get("", status="rejected"))["items"]
        assert card["reason"] == "the slug is empty"
        again = await at.post("", {"story_id": STORY, "gate": "qa_passed"}, 4)
        assert (again.status_code, again.json()["code"]) == (422, "invalid_input")


@pytest.mark.rule("AP-76", "LC-73")
async def test_rejected_gate_is_asked_for_again_on_the_same_subject():
    async with inbox(_draft()) as at:
        waits = await at.post("", {"story_id": STORY, "gate": "approve_scope"}, 1)
        assert (waits.status_code, waits.json()["code"]) == (409, "version_conflict")
        await at.post(f"/{ASKED}/reject", {"reason": "the scope is too wide"}, 2)
        again = await at.post("", {"story_id": STORY, "gate": "approve_scope"}, 3)
        assert again.status_code == 201, again.text
        (card,) = (await at.get(""))["items"]
        assert (card["attempt"], card["requested_by"]) == (2, "user:root")
