"""Who may do what over HTTP: nobody without a token, and each role what its row allows (AP-1, LC-11)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from pydantic import ValidationError

from fleet.config.settings import ServeSettings
from fleet.desk.principals import PrincipalEntry, PrincipalRegistry, hash_token
from fleet.events.approval import ApprovalRequested
from fleet.kernel.ids import EntityId, Principal
from serve_apps.routes.gateway import build_gateway
from tests.support.bench import PEOPLE, STORY_TEXT
from tests.support.front import front_parts
from tests.support.rules import files
from tests.support.story_events import DECISION, DESIGN_COUNCIL, PLAN, STORY, TASK, digest, subject
from tests.support.tool_front import REGISTRY, ROOT, ToolFront, keyed, tool_front

URL = f"/api/planner/stories/{STORY}"
OPEN = {"/healthz", "/readyz"}
PEOPLE_BY_ROLE = {"po": "user:ana", "qa": "user:quinn", "developer": "user:dev"}
"""One person for each role, who holds no other."""
EVERYBODY = frozenset(PEOPLE_BY_ROLE)

COUNCIL = {
    "story_id": STORY,
    "task_description": "Which way of folding umlauts should the slugs use?",
    "role": "architect",
    "output_kind": "text",
    "constraints": {"rubric": [{"name": "readers", "text": "Links stay readable"}]},
    "budget": {"tokens": 50_000, "wall_s": 600},
}
DELEGATION = {
    "gate": "approve_scope",
    "delegate": "reviewer",
    "reason": "small changes may begin at once",
    "valid_until": "2020-01-01T00:00:00Z",
    "max_rigor": "L1",
}

ENDING = {"reason": "it leaks memory", "revision": "a" * 64}

ASKED_OF_QA = ApprovalRequested(
    approval_id=EntityId("ap-asked1"),
    gate="waive_dimension",
    role="qa",
    actor="human",
    subject=subject("report", "rp-1", digest("report")),
    risk="low",
    expires_at=9**15,
    attempt=1,
    card_digest=digest("card"),
    requested_by=Principal("system:council"),
)

TABLE: list[tuple[str, str, Any, frozenset[str]]] = [
    ("POST", "/api/planner/stories", STORY_TEXT, frozenset({"po"})),
    ("PATCH", URL, {"title": "As an editor I want other slugs"}, frozenset({"po"})),
    ("POST", f"{URL}/coach", {"proposals": ["title/wrap"]}, frozenset({"po"})),
    ("POST", f"{URL}/pause", {"reason": "not today, please"}, frozenset({"po"})),
    ("POST", f"{URL}/resume", {"note": ""}, frozenset({"po"})),
    ("POST", f"{URL}/unpark", {"note": "look at it again"}, frozenset({"po"})),
    ("POST", f"{URL}/restore", {"checkpoint": "rp-none1", "reason": "the second task broke it"}, frozenset({"po"})),
    ("GET", f"{URL}/checkpoints", None, EVERYBODY),
    ("GET", f"{URL}/deployments", None, EVERYBODY),
    ("POST", f"{URL}/cancel", {"reason": "nobody needs it any more"}, frozenset({"po"})),
    ("POST", f"{URL}/archive", {"reason": "nobody reads it any more"}, frozenset({"po"})),
    ("GET", f"{URL}/plans", None, EVERYBODY),
    ("GET", f"{URL}/plans/{PLAN}", None, EVERYBODY),
    ("POST", f"{URL}/plans", {"rationale": "smaller steps are better", "tasks": []}, frozenset({"po"})),
    ("POST", f"{URL}/plans/{PLAN}/adopt", {"decision_id": DECISION}, frozenset({"po"})),
    ("POST", f"{URL}/plans/{PLAN}/reject", {"reason": "there is a better one"}, frozenset({"po"})),
    ("POST", f"{URL}/derive-tasks", None, frozenset({"po"})),
    ("GET", f"{URL}/tasks/{TASK}", None, EVERYBODY),
    ("PATCH", f"{URL}/tasks/{TASK}", {"priority": 3}, frozenset({"po"})),
    ("POST", f"{URL}/tasks/{TASK}/release", None, frozenset({"po", "developer"})),
    (
        "POST",
        f"{URL}/tasks/{TASK}/actions",
        {"action": "DISCARD_TASK", "feedback": "nobody needs it any more"},
        frozenset({"po"}),
    ),
    ("POST", f"{URL}/start", {"repo": "/srv/text"}, frozenset({"po"})),
    ("POST", f"{URL}/transition", {"event": "reject_build", "reason": "the design is wrong"}, frozenset({"po"})),
    ("POST", f"{URL}/steps/run/rn-none1/resolve", {"outcome": "happened", "note": "I looked there"}, frozenset({"po"})),
    ("POST", f"{URL}/questions", {"text": "Which alphabet?"}, EVERYBODY),
    ("POST", f"{URL}/tasks/{TASK}/claim", {"role": "developer"}, frozenset({"developer"})),
    ("PUT", f"{URL}/rigor", {"rigor": "L2", "reason": "it is about money now"}, EVERYBODY),
    ("PUT", f"/api/budgets/story/{STORY}", {"limits": {"calls": 5}}, frozenset({"po"})),
    ("POST", "/api/projects", {"title": "Shop"}, frozenset({"po"})),
    ("POST", "/api/projects/pr-default/epics", {"title": "Cart"}, frozenset({"po"})),
    ("POST", "/api/projects/pr-default/discoveries", {"goal": "A shop with a cart and a search"}, frozenset({"po"})),
    ("POST", "/api/ceremonies", {"story_ids": []}, frozenset({"po"})),
    ("GET", f"/api/audit/events?stream={STORY}", None, frozenset({"po"})),
    ("GET", "/api/audit/status", None, frozenset({"po"})),
    ("POST", "/api/audit/verify", None, frozenset({"po"})),
    ("POST", "/api/fleet/pause", {"reason": "something looks wrong"}, frozenset()),
    ("POST", "/api/fleet/resume", {"note": ""}, frozenset()),
    ("GET", "/api/fleet", None, EVERYBODY),
    ("GET", "/api/fleet/disk", None, frozenset()),
    ("POST", f"/api/streams/{STORY}/accept-loss", {"reason": "the disk of the store died"}, frozenset()),
    ("GET", "/api/deployments", None, frozenset()),
    ("POST", "/api/deployments/preview/stop", ENDING, frozenset()),
    ("POST", "/api/deployments/preview/rollback", ENDING, frozenset()),
    ("GET", "/api/delegations", None, frozenset({"po"})),
    ("POST", "/api/delegations", DELEGATION, frozenset({"po"})),
    ("DELETE", "/api/delegations/dg-none1", None, frozenset({"po"})),
    ("GET", "/api/streams/consumers", None, frozenset()),
    ("GET", "/api/dlq", None, frozenset()),
    ("POST", "/api/dlq/none/retry", None, frozenset()),
    ("GET", "/api/audit/events?stream=platform:main", None, frozenset()),
    ("GET", "/api/approvals", None, EVERYBODY),
    ("POST", "/api/councils", COUNCIL, frozenset({"po", "qa"})),
    ("GET", "/api/councils", None, EVERYBODY),
    ("POST", f"/api/councils/{DESIGN_COUNCIL}/cancel", {"reason": "nobody needs it any more"}, frozenset({"po"})),
    ("POST", f"/api/councils/{DESIGN_COUNCIL}/reject", {"reason": "it looked at one way"}, frozenset({"po"})),
    ("GET", "/api/council-pools", None, frozenset()),
    ("GET", "/api/council-pools/developer", None, frozenset()),
    ("PUT", "/api/council-pools/developer", {"kind": "mock"}, frozenset()),
    ("DELETE", "/api/council-pools/developer", None, frozenset()),
    ("GET", "/api/agents", None, frozenset()),
    ("POST", "/api/agents", {"role": "developer", "model_policy": "default"}, frozenset()),
    ("DELETE", "/api/agents/agent-developer-101", None, frozenset()),
    ("GET", URL, None, EVERYBODY),
]
"""Method, address, body, and the roles that are not refused for what they are."""


def _who(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name.removeprefix('user:')}-token"}


@pytest.mark.rule("AP-1", "LC-11", "LC-76")
async def test_each_role_is_refused_what_its_row_does_not_allow():
    assert all(PEOPLE[name] == {role} for role, name in PEOPLE_BY_ROLE.items())
    async with tool_front() as at:
        # What qa is asked about it sees; the task is none of its own, and looks as if it were not there.
        await at.record(ASKED_OF_QA)
        for number, (method, path, body, allowed) in enumerate(TABLE):
            for role, name in PEOPLE_BY_ROLE.items():
                if role in allowed:
                    continue
                headers = keyed(number + 1, _who(name)) | {"If-Match": "*"}
                before = (await at.world.desk.state(STORY)).version
                response = await at.client.request(method, path, json=body, headers=headers)
                told = (role, method, path, response.text)
                is_hidden = role == "qa" and path.startswith(f"{URL}/tasks/")
                expected = (404, "not_found") if is_hidden else (403, "policy_denied")
                assert (response.status_code, response.json()["code"]) == expected, told
                assert (await at.world.desk.state(STORY)).version == before, told


@pytest.mark.rule("AP-1")
async def test_each_role_is_not_refused_what_its_row_allows():
    for number, (method, path, body, allowed) in enumerate(TABLE):
        # What one of them does must not be in the way of the next.
        if "cancel" in path or not allowed:
            continue
        async with tool_front() as at:
            for role in sorted(allowed):
                headers = keyed(number + 1, _who(PEOPLE_BY_ROLE[role])) | {"If-Match": "*"}
                response = await at.client.request(method, path, json=body, headers=headers)
                assert response.status_code != 403, (role, method, path, response.text)
                assert response.status_code < 500, (role, method, path, response.text)


SCOPE = EntityId("ap-scope1")
DELEGATES = DELEGATION | {"valid_until": "2999-01-01T00:00:00Z"}
OF_THE_PLATFORM: list[tuple[str, str, Any]] = [
    ("GET", "/api/delegations", None),
    ("GET", "/api/council-pools", None),
    ("GET", "/api/agents", None),
    ("GET", "/api/dlq", None),
    ("GET", "/api/streams/consumers", None),
    ("PUT", "/api/council-pools/developer", {"num_agents": 3, "kind": "mock", "modes": ["excellent"] * 3}),
    ("POST", "/api/fleet/pause", {"reason": "something looks wrong"}),
    ("POST", "/api/fleet/resume", {"note": ""}),
]
"""What admins do: config, delegations, pools, pauses and repairs (RT-24)."""


@asynccontextmanager
async def _entered(
    at: ToolFront, patch: pytest.MonkeyPatch, name: str, *roles: str
) -> AsyncGenerator[tuple[httpx2.AsyncClient, dict[str, str]]]:
    """A front that knows this principal alone, whose roles the owners know too, and its token."""
    patch.setitem(PEOPLE, name, frozenset(roles))
    entry = PrincipalEntry(principal=Principal(name), roles=frozenset(roles), token_sha256=hash_token("its-token"))
    settings = files().load("serve.yaml", ServeSettings)
    app = build_gateway(at.world.desk, PrincipalRegistry((entry,)), settings, parts=front_parts(at.world))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://fleet") as client:
        yield client, {"Authorization": "Bearer its-token"}


async def _scope_waits(at: ToolFront) -> None:
    """The gate of the scope waits for a person in role po, and the owner knows."""
    content = (await at.world.desk.state(STORY)).content.digest
    changes = {
        "approval_id": SCOPE,
        "gate": "approve_scope",
        "role": "po",
        "subject": subject("content", STORY, content),
    }
    await at.record(ASKED_OF_QA.model_copy(update=changes))
    await at.client.post(f"{URL}/questions", json={"text": "Which alphabet?"}, headers=keyed(800, ROOT))


@pytest.mark.rule("RT-24")
async def test_admin_keeps_the_platform_and_neither_sees_a_story_nor_opens_a_gate(monkeypatch: pytest.MonkeyPatch):
    async with tool_front() as at:
        await _scope_waits(at)
        async with _entered(at, monkeypatch, "user:adam", "admin") as (client, adam):
            for number, (method, path, body) in enumerate(OF_THE_PLATFORM):
                response = await client.request(method, path, json=body, headers=keyed(number, adam))
                assert response.status_code == 200, (method, path, response.text)
            for path in ("planner/stories", "approvals", "tasks/pending", "councils"):
                assert (await client.get(f"/api/{path}", headers=adam)).json()["items"] == [], path
            before = (await at.world.desk.state(STORY)).version
            sent: list[tuple[str, str, Any]] = [
                ("GET", URL, None),
                ("GET", f"{URL}/tasks", None),
                ("GET", f"/api/events?stream={STORY}", None),
                ("POST", f"{URL}/transition", {"event": "build_done"}),
                ("POST", f"{URL}/approvals/{SCOPE}/grant", {"notes": "I am the admin here"}),
                ("POST", f"/api/approvals/{SCOPE}/grant", {"notes": "I am the admin here"}),
            ]
            for number, (method, path, body) in enumerate(sent, 100):
                response = await client.request(method, path, json=body, headers=keyed(number, adam))
                assert (response.status_code, response.json()["code"]) == (404, "not_found"), (method, path)
        # One who sees the story by another role opens no more of its gates.
        async with _entered(at, monkeypatch, "user:adam", "admin", "architect") as (client, adam):
            assert (await client.get(URL, headers=adam)).status_code == 200
            response = await client.post(f"{URL}/approvals/{SCOPE}/grant", json={}, headers=keyed(200, adam))
            assert (response.status_code, response.json()["rule_id"]) == (403, "LC-11"), response.text
        assert (await at.world.desk.state(STORY)).version == before
        assert (await at.world.desk.state(STORY)).approvals[SCOPE].status == "requested"


@pytest.mark.rule("RT-25", "LC-76", "LC-77")
async def test_agent_with_a_token_opens_no_gate_of_a_person_and_changes_nothing_of_the_platform(
    monkeypatch: pytest.MonkeyPatch,
):
    async with tool_front() as at:
        await _scope_waits(at)
        async with _entered(at, monkeypatch, "agent:po-001", "po", "architect") as (client, agent):
            before = (await at.world.desk.state(STORY)).version
            granted = await client.post(f"{URL}/approvals/{SCOPE}/grant", json={}, headers=keyed(1, agent))
            assert (granted.status_code, granted.json()["code"]) == (403, "policy_denied"), granted.text
            assert granted.json()["rule_id"] == "LC-76"
            refused: list[tuple[str, str, Any]] = [
                *OF_THE_PLATFORM,
                ("POST", "/api/delegations", DELEGATES),
                ("DELETE", "/api/delegations/dg-none1", None),
                ("POST", "/api/agents", {"role": "developer", "model_policy": "default"}),
                ("POST", "/api/dlq/none/retry", None),
                ("POST", f"/api/streams/{STORY}/accept-loss", {"reason": "the disk of the store died"}),
            ]
            for number, (method, path, body) in enumerate(refused, 10):
                response = await client.request(method, path, json=body, headers=keyed(number, agent))
                assert (response.status_code, response.json()["code"]) == (403, "policy_denied"), (method, path)
        assert (await at.world.desk.state(STORY)).version == before


@pytest.mark.rule("RT-24", "RT-25")
@pytest.mark.parametrize("name", ["agent:devops-001", "system:council"])
def test_admin_is_a_person(name: str):
    with pytest.raises(ValidationError, match="for people alone"):
        PrincipalEntry(principal=Principal(name), roles=frozenset({"admin"}), token_sha256=hash_token("its-token"))


@pytest.mark.rule("AP-1")
async def test_nothing_but_health_is_answered_without_a_token():
    app = build_gateway(None, REGISTRY, files().load("serve.yaml", ServeSettings))  # pyright: ignore[reportArgumentType]
    async with tool_front() as at:
        for path, item in app.openapi()["paths"].items():
            for method in item:
                if path in OPEN:
                    continue
                url = path.replace("{", "x").replace("}", "")
                response = await at.client.request(method.upper(), url, json={})
                assert response.status_code == 401, (method, path, response.status_code, response.text[:200])
        for path in ("/api/openapi.json", "/docs", "/redoc", "/metrics", "/api", "/api/mcp"):
            assert (await at.client.get(path)).status_code in (401, 404, 405), path
