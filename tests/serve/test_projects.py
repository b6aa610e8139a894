"""Projects, epics and discoveries over HTTP (AP-50, AP-51, PL-54)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.stores import eventually
from tests.support.tool_front import DEV, ROOT, ToolFront, keyed, tool_front

PROJECTS, STORIES = "/api/projects", "/api/planner/stories"
SHOP = {"title": "Shop", "default_rigor": "L2"}
GOAL = {"goal": "A shop with a cart and a search", "is_empty": True}
DEFAULT = f"{PROJECTS}/pr-default"


@pytest.fixture
async def at() -> AsyncIterator[ToolFront]:
    async with tool_front() as front:
        yield front


async def _sent(at: ToolFront, method: str, path: str, body: dict[str, Any], *, number: int, who: Any = ROOT) -> Any:
    return await at.client.request(method, path, json=body, headers=keyed(number, who))


async def _made(at: ToolFront, path: str, body: dict[str, Any], *, number: int) -> dict[str, Any]:
    response = await _sent(at, "POST", path, body, number=number)
    assert response.status_code == 201, response.text
    return response.json()


@pytest.mark.rule("AP-50", "AP-2", "PL-2")
async def test_project_is_created_once_read_and_changed(at: ToolFront):
    made = await _made(at, PROJECTS, SHOP, number=1)
    assert await _made(at, PROJECTS, SHOP, number=1) == made
    url = f"{PROJECTS}/{made['project_id']}"
    listed = (await at.client.get(PROJECTS, headers=DEV)).json()["items"]
    assert {p["project_id"] for p in listed} == {"pr-default", made["project_id"]}
    page = (await at.client.get(f"{PROJECTS}?limit=1", headers=DEV)).json()
    rest = (await at.client.get(f"{PROJECTS}?cursor={page['next_cursor']}", headers=DEV)).json()
    assert [p["project_id"] for p in (*page["items"], *rest["items"])] == [p["project_id"] for p in listed]
    changed = await _sent(at, "PATCH", url, {"title": "Store", "status": "archived"}, number=2)
    assert (changed.status_code, changed.json()["title"], changed.json()["status"]) == (200, "Store", "archived")
    assert changed.headers["etag"] == f'"v{changed.json()["version"]}"'
    stale = await at.client.patch(url, json={"title": "x"}, headers=keyed(3, ROOT) | {"If-Match": '"v1"'})
    assert (stale.status_code, stale.json()["code"]) == (412, "precondition_failed")
    closed = await _sent(at, "POST", f"{url}/epics", {"title": "Cart"}, number=4)
    assert (closed.status_code, closed.json()["code"]) == (409, "invalid_transition")


@pytest.mark.rule("AP-51", "PL-1", "PL-4")
async def test_epic_holds_stories_and_is_cancelled_with_them(at: ToolFront):
    project = (await _made(at, PROJECTS, SHOP, number=1))["project_id"]
    epic = await _made(at, f"{PROJECTS}/{project}/epics", {"title": "Cart", "goal": "Buy more"}, number=2)
    url = f"/api/epics/{epic['epic_id']}"
    text = {"title": "As a shopper I want a cart", "project_id": project, "epic_id": epic["epic_id"]}
    story = await _made(at, STORIES, text, number=3)
    found = (await at.client.get(url, headers=ROOT)).json()
    assert (found["status"], found["stories"], found["goal"]) == ("planning", [story["story_id"]], "Buy more")
    names = (await at.client.get(f"{PROJECTS}/{project}/epics", headers=ROOT)).json()["items"]
    assert [e["title"] for e in names] == ["inbox", "Cart"]
    bare = await _sent(at, "PATCH", url, {"status": "cancelled"}, number=4)
    assert (bare.status_code, bare.json()["code"]) == (422, "invalid_input")
    body = {"status": "cancelled", "reason": "the shop is closed"}
    assert (await _sent(at, "PATCH", url, body, number=5)).json()["status"] == "cancelled"
    late = await _sent(at, "POST", STORIES, text, number=6)
    assert (late.status_code, late.json()["code"]) == (409, "invalid_transition")


@pytest.mark.rule("AP-25", "AP-1", "PL-1")
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"{PROJECTS}/pr-none1"),
        ("PATCH", f"{PROJECTS}/pr-none1"),
        ("POST", f"{PROJECTS}/pr-none1/epics"),
        ("GET", f"{PROJECTS}/st-none1"),
        ("GET", "/api/epics/ep-none1"),
        ("PATCH", "/api/epics/ep-none1"),
        ("GET", f"{DEFAULT}/discoveries/di-none1"),
        ("POST", f"{DEFAULT}/discoveries/di-none1/accept"),
    ],
)
async def test_what_is_not_there_is_not_found(at: ToolFront, method: str, path: str):
    body = {"title": "Cart"} if "accept" not in path else {}
    response = await at.client.request(method, path, json=body, headers=keyed(1, ROOT))
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


@pytest.mark.rule("AP-50", "AP-11", "GL-7")
async def test_developer_and_unknown_fields_are_refused(at: ToolFront):
    denied = await _sent(at, "POST", PROJECTS, SHOP, number=1, who=DEV)
    assert (denied.status_code, denied.json()["code"]) == (403, "policy_denied")
    for path in (PROJECTS, f"{DEFAULT}/epics", f"{DEFAULT}/discoveries"):
        wrong = await _sent(at, "POST", path, {"colour": "red"}, number=2)
        assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_input")


@pytest.mark.rule("PL-54")
async def test_goal_becomes_stories_once_a_po_accepts(at: ToolFront):
    found = await _made(at, f"{DEFAULT}/discoveries", GOAL, number=1)
    assert (found["status"], found["source"], len(found["proposal"]["stories"])) == ("proposed", "template", 4)
    url = f"{DEFAULT}/discoveries/{found['discovery_id']}"
    text = await at.client.get(f"{url}/requirements.md", headers=DEV)
    assert text.headers["content-type"] == "text/markdown; charset=utf-8"
    assert text.text.startswith("# A shop with a cart and a search")
    answered = await _sent(at, "POST", f"{url}/answers", {"answers": {"qu-1": "shopper"}}, number=2)
    assert answered.json()["proposal"]["stories"][1]["title"].startswith("As a shopper, I want")
    accepted = (await _sent(at, "POST", f"{url}/accept", {"note": "go"}, number=3)).json()
    assert (accepted["status"], len(accepted["story_ids"])) == ("accepted", 4)
    wanted = set(accepted["story_ids"])

    async def are_there() -> bool:
        items = (await at.client.get(STORIES, headers=ROOT)).json()["items"]
        return wanted <= {s["story_id"] for s in items}

    assert await eventually(are_there, within_s=30)
    assert [d["status"] for d in (await at.client.get(f"{DEFAULT}/discoveries", headers=DEV)).json()["items"]] == [
        "accepted"
    ]
    twice = await _sent(at, "POST", f"{url}/reject", {"reason": "the goal has changed"}, number=4)
    assert (twice.status_code, twice.json()["code"]) == (409, "invalid_transition")


@pytest.mark.rule("PL-54", "AP-36")
@pytest.mark.parametrize("goal", ["", "make something nice", "two\nlines of it"])
async def test_goal_that_names_nothing_to_build_is_refused(at: ToolFront, goal: str):
    response = await _sent(at, "POST", f"{DEFAULT}/discoveries", {"goal": goal}, number=1)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_input")


@pytest.mark.rule("PL-54")
async def test_rejected_proposal_is_shown_with_its_reason(at: ToolFront):
    found = await _made(at, f"{DEFAULT}/discoveries", GOAL, number=1)
    url = f"{DEFAULT}/discoveries/{found['discovery_id']}"
    assert (await _sent(at, "POST", f"{url}/reject", {"reason": "short"}, number=2)).status_code == 422
    body = {"reason": "the goal has changed"}
    assert (await _sent(at, "POST", f"{url}/reject", body, number=3)).json()["status"] == "rejected"
    assert (await at.client.get(url, headers=DEV)).json()["reason"] == body["reason"]
