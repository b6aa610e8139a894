"""An architect sees the stories of its epics, and in an incident another one, on record (CX-11, CX-18)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from fleet.desk.platform import PlatformDesk
from fleet.desk.principals import PrincipalEntry, PrincipalRegistry
from fleet.events.codec import decode
from fleet.events.envelope import StoredEvent
from fleet.events.platform import OverrideUsed
from fleet.kernel.clock import MemoryClock
from fleet.kernel.ids import EntityId, Principal
from fleet.log.memory import MemoryInbox
from fleet.owner.platform_view import PlatformView
from fleet.planning.platform_state import PLATFORM
from serve_apps.sight import Sight
from tests.support.story_events import DECISION, EPIC, STORY, TASK, decision_payload
from tests.support.tool_front import ARCHIE, DEV, QUINN, ROOT, ToolFront, keyed, tool_front

URL = f"/api/planner/stories/{STORY}"
WHY = {"X-Fleet-Override": "incident in-slow1: the checkout is slow since noon"}


@pytest.fixture
async def at() -> AsyncIterator[ToolFront]:
    """An architect who is assigned to an epic that is not the one of the story."""
    async with tool_front() as front:
        assign(front, "ep-other1")
        yield front


def assign(at: ToolFront, *epics: str, **changes: Any) -> None:
    sight: Sight = at.app.state.sight
    rows = replace(sight.rows, epics=lambda who: frozenset(epics) if who == "user:archie" else None)
    at.app.state.sight = replace(sight, rows=rows, **changes)


async def overrides(at: ToolFront) -> list[OverrideUsed]:
    events: list[StoredEvent] = await at.world.log.read(PLATFORM)
    return [p for p in map(decode, events) if isinstance(p, OverrideUsed)]


@pytest.mark.rule("CX-11")
def test_registry_says_to_which_epics_somebody_is_assigned() -> None:
    entry = PrincipalEntry(
        principal=Principal("user:kim"), roles=frozenset({"architect"}), token_sha256="0" * 64, epics=frozenset({EPIC})
    )
    registry = PrincipalRegistry((entry,))
    assert registry.epics_of(Principal("user:kim")) == {EPIC}
    assert PrincipalRegistry((entry.model_copy(update={"epics": None}),)).epics_of(entry.principal) is None
    assert PrincipalRegistry((entry.model_copy(update={"enabled": False}),)).epics_of(entry.principal) == frozenset()
    assert registry.epics_of(Principal("user:nobody")) == frozenset()


@pytest.mark.rule("CX-11", "CX-16", "CX-17")
async def test_architect_sees_the_stories_of_its_epics_with_all_that_is_in_them(at: ToolFront):
    for path in ("", "/tasks", "/plan", "/report"):
        assert (await at.client.get(URL + path, headers=ARCHIE)).status_code == 404, path
    assert (await at.client.get("/api/planner/stories", headers=ARCHIE)).json()["items"] == []
    assign(at, EPIC)
    for path in ("", "/tasks", "/plan", "/report"):
        assert (await at.client.get(URL + path, headers=ARCHIE)).status_code == 200, path
    whole = (await at.client.get(f"{URL}/tasks", headers=ROOT)).json()
    assert (await at.client.get(f"{URL}/tasks", headers=ARCHIE)).json() == whole


@pytest.mark.rule("CX-11")
@pytest.mark.parametrize(("category", "status"), [("SECURITY", 200), ("INFRASTRUCTURE", 200), ("DATA", 404)])
async def test_of_other_stories_an_architect_sees_the_decisions_that_hold_for_all(
    at: ToolFront, category: str, status: int
):
    id = EntityId("de-across1")
    await at.record(decision_payload(id, category=category, affects=(TASK,), council_id=None))
    found = await at.client.get(f"/api/decisions/{id}", headers=ARCHIE)
    assert found.status_code == status, found.text
    assert TASK not in found.text, "the task that it affects is a row of the other story"
    assert (await at.client.get(f"/api/decisions/{DECISION}", headers=ARCHIE)).status_code == 200
    assert (await at.client.get(f"/api/decisions/{id}", headers=ROOT)).json()["affects"] == [TASK]


@pytest.mark.rule("CX-11")
async def test_architect_sees_its_own_epics_alone(at: ToolFront):
    made = await at.client.post("/api/projects/pr-default/epics", json={"title": "Cart"}, headers=keyed(1, ROOT))
    epic = made.json()["epic_id"]
    assert (await at.client.get(f"/api/epics/{epic}", headers=ARCHIE)).status_code == 404
    assign(at, epic)
    assert (await at.client.get(f"/api/epics/{epic}", headers=ARCHIE)).status_code == 200
    listed = (await at.client.get("/api/projects/pr-default/epics", headers=ARCHIE)).json()["items"]
    assert [line["epic_id"] for line in listed] == [epic]


@pytest.mark.rule("CX-18")
async def test_override_is_off_unless_it_is_switched_on(at: ToolFront):
    assert (await at.client.get(URL, headers=ARCHIE | WHY)).status_code == 404
    assert await overrides(at) == []


@pytest.mark.rule("CX-18")
async def test_override_shows_the_story_for_one_request_and_each_is_on_record(at: ToolFront):
    assign(at, "ep-other1", override_s=60)
    for path in ("/report", "/tasks", "/tasks"):
        assert (await at.client.get(URL + path, headers=ARCHIE | WHY)).status_code == 200, path
    assert (await at.client.get(f"{URL}/tasks", headers=ARCHIE)).status_code == 404, "it lasts for its request alone"
    told = await overrides(at)
    paths = [f"GET {URL}/report", f"GET {URL}/tasks", f"GET {URL}/tasks"]
    assert [one.action for one in told] == paths
    assert {(one.principal, one.object, one.rule_id, one.reason) for one in told} == {
        ("user:archie", STORY, "CX-18", WHY["X-Fleet-Override"])
    }


@pytest.mark.rule("CX-18", "CX-16")
async def test_override_needs_a_reason_a_role_and_a_story_of_its_projects(at: ToolFront):
    assign(at, "ep-other1", override_s=60)
    for story in (STORY, "st-nobody"):
        short = await at.client.get(f"/api/planner/stories/{story}", headers=ARCHIE | {"X-Fleet-Override": "why"})
        assert (short.status_code, short.json()["code"]) == (422, "invalid_input")
    assert (await at.client.get(URL, headers=QUINN | WHY)).status_code == 404, "qa may not"
    hidden = await at.client.get(f"{URL}/report", headers=DEV | WHY)
    assert hidden.status_code == 404, "a developer may not"
    sight: Sight = at.app.state.sight
    elsewhere = PrincipalRegistry(
        (
            PrincipalEntry(
                principal=Principal("user:archie"),
                roles=frozenset({"architect", "po"}),
                token_sha256="0" * 64,
                projects=frozenset({"pr-other"}),
            ),
        )
    )
    at.app.state.sight = replace(sight, registry=elsewhere)
    assert (await at.client.get(URL, headers=ARCHIE | WHY)).status_code == 404, "never for another project"
    assert await overrides(at) == []


@pytest.mark.rule("CX-18")
async def test_override_that_cannot_be_recorded_shows_nothing(at: ToolFront):
    clock = MemoryClock()
    # The log is down: no owner of the platform's stream answers.
    trail = PlatformDesk(view=PlatformView(at.world.log, at.world.feed), inbox=MemoryInbox(clock), clock=clock)
    assign(at, "ep-other1", override_s=60, trail=trail)
    for path in ("", "/tasks", "/report"):
        asking = asyncio.create_task(at.client.get(URL + path, headers=ARCHIE | WHY))
        while not asking.done():
            await asyncio.sleep(0.001)
            clock.advance(1)
        answer = await asking
        assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable"), answer.text
        assert TASK not in answer.text
        assert (await at.world.desk.state(STORY)).content.title not in answer.text
    assert await overrides(at) == []


@pytest.mark.rule("CX-18")
async def test_override_is_no_way_to_a_command_and_ends_in_time(at: ToolFront):
    assign(at, "ep-other1", override_s=60)
    sent = await at.client.post(
        f"{URL}/pause", json={"reason": "it is slow since noon"}, headers=keyed(1, ARCHIE | WHY)
    )
    assert sent.status_code == 404, sent.text
    who, state = Principal("user:archie"), await at.world.desk.state(STORY)
    opened = await at.app.state.sight.overriding(who, STORY, WHY["X-Fleet-Override"], action="GET")
    assert opened.sees_story(who, state)
    assert not replace(opened, until_ms=at.world.desk.now_ms).sees_story(who, state)
