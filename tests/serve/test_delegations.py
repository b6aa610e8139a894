"""Standing delegations over HTTP (AP-94, LC-77)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from fleet.config.settings import ServeSettings
from fleet.desk.principals import PrincipalEntry, PrincipalRegistry, hash_token
from fleet.kernel.ids import Principal
from fleet.planning.platform_state import PLATFORM
from serve_apps.routes.gateway import build_gateway
from tests.support.council_front import START, council_front, started, voters
from tests.support.front import front_parts
from tests.support.rules import files
from tests.support.story_events import STORY
from tests.support.tool_front import DEV, QUINN, ROOT, ToolFront, keyed, tool_front

URL = "/api/delegations"


@pytest.fixture
async def at() -> AsyncIterator[ToolFront]:
    """A front whose shard takes commands."""
    async with tool_front() as front:
        yield front


def _body(**changes: Any) -> dict[str, Any]:
    body = {
        "gate": "approve_scope",
        "delegate": "reviewer",
        "reason": "small changes may begin at once",
        "valid_until": (datetime.now(UTC) + timedelta(days=7)).isoformat(),
        "max_rigor": "L1",
        "projects": ["pr-default"],
    }
    return body | changes


async def _grant(at: ToolFront, *, number: int = 1, who: dict[str, str] = ROOT, **changes: Any) -> httpx2.Response:
    return await at.client.post(URL, json=_body(**changes), headers=keyed(number, who))


async def _listed(at: ToolFront) -> Any:
    response = await at.client.get(URL, headers=ROOT)
    assert response.status_code == 200, response.text
    return response.json()["items"]


def _refused(response: httpx2.Response, status: int, code: str) -> None:
    assert (response.status_code, response.json()["code"]) == (status, code), response.text


@pytest.mark.rule("AP-94", "LC-77", "AP-2")
async def test_delegation_is_granted_listed_and_revoked(at: ToolFront):
    made = await _grant(at)
    assert made.status_code == 201, made.text
    body = _body()
    assert (await at.client.post(URL, json=body, headers=keyed(7, ROOT))).status_code == 201
    assert (await at.client.post(URL, json=body, headers=keyed(7, ROOT))).status_code == 201
    first, second = await _listed(at)
    assert first == made.json()
    assert (first["status"], first["granted_by"], first["projects"]) == ("active", "user:root", ["pr-default"])
    one = f"{URL}/{first['delegation_id']}"
    revoked = await at.client.delete(one, headers=keyed(2, ROOT), params={"reason": "it went wrong twice"})
    assert revoked.status_code == 200, revoked.text
    assert (revoked.json()["status"], revoked.json()["revoked_by"]) == ("revoked", "user:root")
    _refused(await at.client.delete(one, headers=keyed(3, ROOT)), 409, "invalid_transition")
    assert [row["status"] for row in await _listed(at)] == ["revoked", "active"]
    assert second["delegation_id"] != first["delegation_id"]
    types = [e.type for e in await at.world.log.read(PLATFORM)]
    assert types == ["DelegationGranted", "DelegationGranted", "DelegationRevoked"]


@pytest.mark.rule("AP-94", "LC-77", "AP-36")
async def test_what_may_not_be_delegated_is_refused_and_recorded_nowhere(at: ToolFront):
    _refused(await _grant(at, gate="approve_deploy"), 403, "policy_denied")
    _refused(await _grant(at, number=2, max_rigor="L3"), 403, "policy_denied")
    _refused(await _grant(at, number=3, projects=["pr-none1"]), 404, "not_found")
    far = (datetime.now(UTC) + timedelta(days=31)).isoformat()
    wrong: list[dict[str, Any]] = [
        {"gate": "approve_lunch"},
        {"delegate": "council:po"},
        {"reason": "short"},
        {"valid_until": far},
        {"valid_until": "2026-01-01T00:00:00"},
        {"valid_until": "0001-01-01T00:00:00+23:59"},
        {"max_rigor": "L9"},
        {"projects": "pr-default"},
        {"colour": "red"},
    ]
    for number, changes in enumerate(wrong, 10):
        _refused(await _grant(at, number=number, **changes), 422, "invalid_input")
    _refused(await at.client.delete(f"{URL}/dg-none1", headers=keyed(30, ROOT)), 404, "not_found")
    assert await at.world.log.read(PLATFORM) == []


@pytest.mark.rule("AP-94", "LC-11")
async def test_delegations_are_for_admins_and_product_owners(at: ToolFront):
    made = (await _grant(at)).json()
    for number, who in enumerate((DEV, QUINN), 40):
        _refused(await _grant(at, number=number, who=who), 403, "policy_denied")
        _refused(await at.client.get(URL, headers=who), 403, "policy_denied")
        one = f"{URL}/{made['delegation_id']}"
        _refused(await at.client.delete(one, headers=keyed(number + 10, who)), 403, "policy_denied")
    assert (await at.client.get(URL)).status_code == 401
    assert len(await at.world.log.read(PLATFORM)) == 1


@pytest.mark.rule("AP-1", "AP-25")
async def test_who_sees_chosen_projects_delegates_and_sees_those_alone(at: ToolFront):
    made = (await _grant(at)).json()
    chosen = PrincipalEntry(
        principal=Principal("user:root"),
        roles=frozenset({"po"}),
        projects=frozenset({"pr-shop"}),
        token_sha256=hash_token("root-token"),
    )
    settings = files().load("serve.yaml", ServeSettings)
    app = build_gateway(at.world.desk, PrincipalRegistry((chosen,)), settings, parts=front_parts(at.world))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://fleet") as client:
        assert (await client.get(URL, headers=ROOT)).json()["items"] == []
        _refused(await client.post(URL, json=_body(projects=[]), headers=keyed(60, ROOT)), 403, "policy_denied")
        _refused(await client.post(URL, json=_body(), headers=keyed(61, ROOT)), 404, "not_found")
        hidden = await client.delete(f"{URL}/{made['delegation_id']}", headers=keyed(62, ROOT))
        _refused(hidden, 404, "not_found")


async def _gate(client: httpx2.AsyncClient, status: str) -> Any:
    """The scope's card, once it has this status."""
    async with asyncio.timeout(60):
        while True:
            query = {"gate": "approve_scope", "status": status, "story": STORY}
            if found := (await client.get("/api/approvals", params=query, headers=ROOT)).json()["items"]:
                return found[0]
            await asyncio.sleep(0.05)


async def _council(client: httpx2.AsyncClient) -> Any:
    """The page of the gate's council, once it is over."""
    async with asyncio.timeout(60):
        while True:
            query = {"story": STORY, "status": "COMPLETED"}
            if found := (await client.get("/api/councils", params=query, headers=ROOT)).json()["items"]:
                return (await client.get(f"/api/councils/{found[0]['council_id']}", headers=ROOT)).json()
            await asyncio.sleep(0.05)


@pytest.mark.rule("AP-94", "AP-57", "LC-77", "CN-50")
@pytest.mark.parametrize("standing", [True, False], ids=["standing", "run"])
async def test_gate_that_is_delegated_to_a_council_is_granted_by_its_yes(standing: bool):
    async with council_front(voters("approve")) as (_, _, client):
        if standing:
            body = _body(delegate="council:architect", projects=[])
            made = await client.post(URL, json=body, headers=keyed(72, ROOT))
            assert (made.status_code, made.json()["delegate"]) == (201, "council:architect"), made.text
        await started(client, *([] if standing else ["council:architect"]))
        card = await _gate(client, "granted")
        assert (card["delegated"], card["decided_by"]) == (True, "agent:architect-900")
        page = await _council(client)
        council_id = page["council"]["council_id"]
        assert f"approved by council {council_id}" in card["notes"]
        assert (page["council"]["kind"], page["record"]["winner_or_reason"]) == ("gate", "approve")


@pytest.mark.rule("AP-94", "LC-77", "LC-72")
async def test_no_of_the_council_leaves_the_gate_to_a_person_who_grants_it():
    async with council_front(voters("reject")) as (_, _, client):
        await started(client, "council:architect")
        await _council(client)
        waiting = await _gate(client, "requested")
        url = f"/api/approvals/{waiting['approval_id']}/grant"
        granted = await client.post(url, json={"notes": "I take it on me"}, headers=keyed(73, ROOT))
        assert granted.status_code == 200, granted.text
        card = await _gate(client, "granted")
        assert (card["delegated"], card["decided_by"]) == (False, "user:root")


@pytest.mark.rule("AP-57", "LC-77")
@pytest.mark.parametrize(
    "delegate", [["council:po"], ["council:nobody1"], ["council:"], ["po", "qa", "council:architect"], ["council:../x"]]
)
async def test_run_with_a_council_that_holds_no_gate_is_refused(delegate: list[str]):
    async with council_front(voters("approve")) as (world, _, client):
        body = {"repo": "/srv/text", "delegate": delegate}
        _refused(await client.post(START, json=body, headers=keyed(71, ROOT)), 422, "invalid_input")
        assert "StoryStarted" not in await world.types()
