"""Standing delegations over HTTP (AP-94, LC-77)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from fleet.config import ServeSettings
from fleet.ids import Principal
from fleet.planning import PLATFORM
from fleet.services.principals import PrincipalEntry, PrincipalRegistry, hash_token
from serve_apps.gateway import build_gateway
from tests.support.front import front_parts
from tests.support.rules import files
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


async def _grant(at: ToolFront, *, number: int = 1, who: dict[str, str] = ROOT, **changes: Any) -> httpx.Response:
    return await at.client.post(URL, json=_body(**changes), headers=keyed(number, who))


async def _listed(at: ToolFront) -> Any:
    response = await at.client.get(URL, headers=ROOT)
    assert response.status_code == 200, response.text
    return response.json()["items"]


def _refused(response: httpx.Response, status: int, code: str) -> None:
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
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://fleet") as client:
        assert (await client.get(URL, headers=ROOT)).json()["items"] == []
        _refused(await client.post(URL, json=_body(projects=[]), headers=keyed(60, ROOT)), 403, "policy_denied")
        _refused(await client.post(URL, json=_body(), headers=keyed(61, ROOT)), 404, "not_found")
        hidden = await client.delete(f"{URL}/{made['delegation_id']}", headers=keyed(62, ROOT))
        _refused(hidden, 404, "not_found")
