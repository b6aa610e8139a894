"""Pausing the fleet over HTTP: by an admin, for every story at once, and never for reads and health (AP-95, PL-50)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from fleet.config.settings import ServeSettings
from fleet.desk.principals import PrincipalEntry, PrincipalRegistry, hash_token
from fleet.kernel.ids import Principal
from fleet.planning.platform_state import PLATFORM
from serve_apps.routes.gateway import build_gateway
from tests.support.bench import World
from tests.support.front import front_parts
from tests.support.rules import files
from tests.support.story_events import STORY
from tests.support.tool_front import DEV, REGISTRY, ROOT, ToolFront, keyed, tool_front

WHY = {"reason": "something looks wrong"}
PAUSE, RESUME = "/api/fleet/pause", "/api/fleet/resume"


@pytest.fixture
async def at() -> AsyncIterator[ToolFront]:
    """A story in BUILD that its owner takes commands for."""
    async with tool_front() as front:
        yield front


async def _post(at: ToolFront, url: str, body: Any, *, number: int, who: dict[str, str] = ROOT) -> httpx2.Response:
    return await at.client.post(url, json=body, headers=keyed(number, who))


async def _shown(at: ToolFront, who: dict[str, str] = DEV) -> Any:
    response = await at.client.get("/api/fleet", headers=who)
    assert response.status_code == 200, response.text
    return response.json()


def _refused(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    return response.json()


@pytest.mark.rule("AP-95", "PL-50", "AP-2")
async def test_admin_pauses_the_fleet_and_lets_it_go_on(at: ToolFront):
    assert await _shown(at) == {"version": 0, "is_paused": False, "pause": None, "projects": []}
    paused = await _post(at, PAUSE, WHY, number=1)
    assert paused.status_code == 200, paused.text
    view = paused.json()
    assert (view["is_paused"], view["pause"]["by"], view["pause"]["reason"]) == (True, "user:root", WHY["reason"])
    assert (await _post(at, PAUSE, WHY, number=1)).json() == view == await _shown(at)
    assert (await at.client.get("/readyz")).json() == {"status": "ready"}
    assert (await at.client.get(f"/api/planner/stories/{STORY}", headers=DEV)).status_code == 200
    resumed = await _post(at, RESUME, {"note": "it was a false alarm"}, number=2)
    assert (resumed.status_code, resumed.json()["is_paused"], resumed.json()["pause"]) == (200, False, None)
    assert [e.type for e in await at.world.log.read(PLATFORM)] == ["FleetPaused", "FleetResumed"]


@pytest.mark.rule("PL-50")
async def test_no_call_and_no_run_begins_while_the_fleet_is_paused(at: ToolFront):
    session = (await at.session(number=5))["session_id"]
    assert (await _post(at, PAUSE, WHY, number=1)).status_code == 200
    before = await at.world.types()
    _refused(await at.invoke(session, "files", "list", path=".", number=6), 403, "approval_required")
    told = _refused(await at.run("python", "a.py", number=7), 403, "approval_required")
    assert "the fleet is paused by user:root" in told["detail"]
    assert await at.world.types() == before
    assert (await _post(at, RESUME, {}, number=2)).status_code == 200
    assert (await at.invoke(session, "files", "list", path=".", number=8)).status_code == 200
    assert (await at.run("python", "a.py", number=9)).status_code == 202


@pytest.mark.rule("AP-95", "AP-36", "LC-11")
async def test_what_is_no_pause_is_refused_and_recorded_nowhere(at: ToolFront):
    for url, body in ((PAUSE, WHY), (RESUME, {})):
        _refused(await _post(at, url, body, number=1, who=DEV), 403, "policy_denied")
        assert (await at.client.post(url, json=body)).status_code == 401
        assert (await at.client.post(url, json=body, headers=ROOT)).json()["code"] == "idempotency_key_required"
    _refused(await _post(at, RESUME, {}, number=2), 409, "invalid_transition")
    for number, body in enumerate(({}, {"reason": "short"}, WHY | {"colour": "red"}, WHY | {"project_id": 7}), 10):
        _refused(await _post(at, PAUSE, body, number=number), 422, "invalid_input")
    _refused(await _post(at, PAUSE, WHY | {"project_id": "pr-none1"}, number=20), 404, "not_found")
    _refused(await _post(at, PAUSE, {"reason": " " * 10}, number=21), 422, "invalid_input")
    assert await at.world.log.read(PLATFORM) == []
    assert (await _post(at, PAUSE, WHY, number=30)).status_code == 200
    _refused(await _post(at, PAUSE, WHY, number=31), 409, "invalid_transition")


@pytest.mark.rule("PL-50")
async def test_one_project_is_paused_alone(at: ToolFront):
    body = WHY | {"project_id": "pr-default"}
    view = (await _post(at, PAUSE, body, number=1)).json()
    assert (view["is_paused"], [one["project_id"] for one in view["projects"]]) == (False, ["pr-default"])
    _refused(await at.run("python", "a.py", number=7), 403, "approval_required")
    assert (await _post(at, RESUME, {"project_id": "pr-default"}, number=2)).json()["projects"] == []
    assert (await at.run("python", "a.py", number=8)).status_code == 202


@pytest.mark.rule("CX-60")
async def test_secret_in_a_reason_is_not_recorded(at: ToolFront):
    token = "ghp_" + "a1B2" * 9
    view = (await _post(at, PAUSE, {"reason": f"it leaked {token} somewhere"}, number=1)).json()
    assert token not in view["pause"]["reason"]
    (event,) = await at.world.log.read(PLATFORM)
    assert token.encode() not in event.body


@pytest.mark.rule("AP-4")
async def test_pause_without_a_shard_waits_for_one(at: ToolFront):
    await at.lose_owner()
    pending = await _post(at, PAUSE, WHY, number=1)
    assert (pending.status_code, pending.json()["status"]) == (202, "pending")
    assert (await _shown(at))["is_paused"] is False
    async with at.owner():
        for _ in range(100):
            if (await _shown(at))["is_paused"]:
                break
        found = (await at.client.get(pending.headers["location"], headers=ROOT)).json()
        assert found["status"] == "done"
    assert (await _shown(at))["is_paused"] is True


@pytest.mark.rule("AP-1", "AP-25")
async def test_admin_of_chosen_projects_pauses_those_alone():
    chosen = PrincipalEntry(
        principal=Principal("user:root"),
        roles=frozenset({"admin"}),
        projects=frozenset({"pr-shop"}),
        token_sha256=hash_token("root-token"),
    )
    world = World()
    settings = files().load("serve.yaml", ServeSettings)
    app = build_gateway(world.desk, PrincipalRegistry((chosen,)), settings, parts=front_parts(world))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://fleet") as client:
        whole = await client.post(PAUSE, json=WHY, headers=keyed(1, ROOT))
        assert _refused(whole, 403, "policy_denied")["rule_id"] == "project_not_held"
        hidden = await client.post(PAUSE, json=WHY | {"project_id": "pr-default"}, headers=keyed(2, ROOT))
        _refused(hidden, 404, "not_found")


async def test_front_without_commands_on_the_fleet_says_so():
    world = World()
    parts = replace(front_parts(world), platform=None)
    app = build_gateway(world.desk, REGISTRY, files().load("serve.yaml", ServeSettings), parts=parts)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://fleet") as client:
        _refused(await client.get("/api/fleet", headers=DEV), 503, "store_unavailable")
