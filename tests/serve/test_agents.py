"""Named agents over HTTP (AP-79, CN-16)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from fleet.planning.platform_state import PLATFORM
from tests.support.tool_front import QUINN, ROOT, ToolFront, keyed, tool_front

URL = "/api/agents"
BODY: dict[str, Any] = {"role": "developer", "model_policy": "default"}


@pytest.fixture
async def at() -> AsyncIterator[ToolFront]:
    """A front whose shard takes commands."""
    async with tool_front() as front:
        yield front


def _refused(response: httpx2.Response, status: int, code: str) -> Any:
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    return response.json()


async def _post(at: ToolFront, body: Any, *, number: int = 1, who: dict[str, str] = ROOT) -> httpx2.Response:
    return await at.client.post(URL, json=body, headers=keyed(number, who))


async def _delete(at: ToolFront, agent: str, *, number: int, who: dict[str, str] = ROOT) -> httpx2.Response:
    return await at.client.delete(f"{URL}/{agent}", headers=keyed(number, who))


async def _listed(at: ToolFront) -> Any:
    return (await at.client.get(URL, headers=ROOT)).json()["items"]


@pytest.mark.rule("AP-79", "CN-16", "AP-2")
async def test_agent_is_added_listed_and_taken_away_and_each_change_is_on_record(at: ToolFront):
    made = await _post(at, BODY)
    assert made.status_code == 201, made.text
    view = made.json()
    assert (view["agent_id"], view["principal"]) == ("agent-developer-101", "agent:developer-101")
    assert (view["role"], view["model_policy"], view["status"]) == ("developer", "default", "ready")
    assert (view["registered_by"], view["registered_at"][-1]) == ("user:root", "Z")
    assert (await _post(at, BODY)).json() == view
    assert await _listed(at) == [view]
    gone = await _delete(at, "agent-developer-101", number=2)
    assert (gone.status_code, gone.json()) == (200, {"agent_id": "agent-developer-101", "version": 2})
    assert (await _delete(at, "agent-developer-101", number=2)).json() == gone.json()
    assert await _listed(at) == []
    _refused(await _delete(at, "agent-developer-101", number=3), 404, "not_found")
    _refused(await _post(at, BODY), 404, "not_found")
    assert [event.type for event in await at.world.log.read(PLATFORM)] == ["AgentRegistered", "AgentUnregistered"]


@pytest.mark.rule("AP-79", "AP-36")
async def test_what_is_no_agent_is_refused_with_what_is_wrong_and_nothing_is_recorded(at: ToolFront):
    for number, (body, field) in enumerate(
        (
            ({}, "role"),
            (BODY | {"role": "butler"}, "role"),
            (BODY | {"model_policy": "lavish"}, "model_policy"),
            (BODY | {"engine": "x"}, "engine"),
            (BODY | {"role": 7}, "role"),
            (BODY | {"persona": "x" * 1001}, "persona"),
            (BODY | {"persona": 7}, "persona"),
        )
    ):
        assert field in str(_refused(await _post(at, body, number=number), 422, "invalid_input"))
    _refused(await _delete(at, "agent-nobody-001", number=20), 404, "not_found")
    assert (await at.client.post(URL, json=BODY, headers=ROOT)).json()["code"] == "idempotency_key_required"
    assert await at.world.log.read(PLATFORM) == []


@pytest.mark.rule("AP-79", "CX-60")
async def test_persona_is_shown_and_recorded_without_the_secrets_in_it(at: ToolFront):
    secret = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
    made = await _post(at, BODY | {"persona": f"Looks at failure first. Token {secret}"})
    assert made.status_code == 201, made.text
    assert made.json()["persona"].startswith("Looks at failure first. Token")
    assert secret not in made.text
    assert secret.encode() not in b"".join(event.body for event in await at.world.log.read(PLATFORM))
    plain = await _post(at, BODY, number=2)
    assert plain.json()["persona"] is None
    assert [one["persona"] is None for one in await _listed(at)] == [False, True]


@pytest.mark.rule("AP-79", "LC-11")
async def test_agents_are_for_admins_alone(at: ToolFront):
    _refused(await _post(at, BODY, who=QUINN), 403, "policy_denied")
    _refused(await _delete(at, "agent-developer-101", number=2, who=QUINN), 403, "policy_denied")
    _refused(await at.client.get(URL, headers=QUINN), 403, "policy_denied")
    assert (await at.client.get(URL)).status_code == 401
    assert await at.world.log.read(PLATFORM) == []
