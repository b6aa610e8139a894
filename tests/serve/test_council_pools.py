"""Pools of councils over HTTP (AP-79, CN-16)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from fleet.planning.platform_state import PLATFORM
from tests.support.tool_front import QUINN, ROOT, ToolFront, keyed, tool_front

URL = "/api/council-pools"
BODY: dict[str, Any] = {"num_agents": 5, "kind": "mock", "modes": ["excellent", "poor"]}


@pytest.fixture
async def at() -> AsyncIterator[ToolFront]:
    """A front whose shard takes commands."""
    async with tool_front() as front:
        yield front


async def _put(
    at: ToolFront, body: Any, *, role: str = "developer", number: int = 1, who: dict[str, str] = ROOT
) -> httpx2.Response:
    return await at.client.put(f"{URL}/{role}", json=body, headers=keyed(number, who))


async def _read(at: ToolFront, role: str = "developer") -> httpx2.Response:
    return await at.client.get(f"{URL}/{role}", headers=ROOT)


async def _records(at: ToolFront) -> list[str]:
    return [event.type for event in await at.world.log.read(PLATFORM)]


def _refused(response: httpx2.Response, status: int, code: str) -> Any:
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    return response.json()


@pytest.mark.rule("AP-79", "CN-16", "AP-2")
async def test_pool_is_set_read_and_taken_away_and_each_change_is_on_record(at: ToolFront):
    shipped = (await _read(at)).json()
    assert (shipped["num_agents"], shipped["set_by"], shipped["set_at"]) == (3, None, None)
    made = await _put(at, BODY)
    assert made.status_code == 200, made.text
    assert (await _put(at, BODY)).json() == made.json()
    pool = (await _read(at)).json()
    assert pool == made.json()
    assert (pool["num_agents"], pool["kind"], pool["modes"]) == (5, "mock", ["excellent", "poor"])
    assert [agent["agent_id"] for agent in pool["agents"]] == [f"agent-developer-00{n}" for n in range(1, 6)]
    assert (pool["set_by"], pool["set_at"][-1]) == ("user:root", "Z")
    gone = await at.client.delete(f"{URL}/developer", headers=keyed(2, ROOT))
    assert (gone.status_code, gone.json()) == (200, {"role": "developer", "version": 2})
    _refused(await _read(at), 404, "not_found")
    assert (await at.client.get(URL, headers=ROOT)).json() == {"items": []}
    assert await _records(at) == ["CouncilPoolSet", "CouncilPoolRemoved"]


@pytest.mark.rule("CN-16")
@pytest.mark.parametrize("name", ["MOCK", "VLLM", "RAY_VLLM"])
async def test_kind_has_the_names_of_the_agent_type_too(at: ToolFront, name: str):
    found = await _put(at, {"agent_type": name})
    kind = {"MOCK": "mock"}.get(name, "vllm")
    if found.status_code == 422:
        # The shipped engines may have none of this kind; the name was understood.
        assert repr(kind) in _refused(found, 422, "invalid_input")["detail"]
    else:
        assert (found.status_code, found.json()["kind"]) == (200, kind)


@pytest.mark.rule("AP-79", "CN-12")
@pytest.mark.parametrize(
    ("role", "body", "field"),
    [
        ("developer", {}, "kind"),
        ("developer", {"kind": "mock", "agent_type": "MOCK"}, "kind"),
        ("developer", BODY | {"num_agents": 4}, "num_agents"),
        ("developer", BODY | {"kind": "oracle"}, "kind"),
        ("developer", BODY | {"model_policy": "lavish"}, "model_policy"),
        ("developer", BODY | {"modes": ["lazy"]}, "modes.0"),
        ("butler", BODY, "role"),
    ],
)
async def test_pool_that_does_not_fit_is_refused_and_nothing_is_recorded(
    at: ToolFront, role: str, body: Any, field: str
):
    found = _refused(await _put(at, body, role=role), 422, "invalid_input")
    assert field in str(found)
    assert await _records(at) == []


@pytest.mark.rule("AP-79")
async def test_pools_are_changed_by_admins_alone(at: ToolFront):
    _refused(await _put(at, BODY, who=QUINN), 403, "policy_denied")
    _refused(await at.client.delete(f"{URL}/developer", headers=keyed(2, QUINN)), 403, "policy_denied")
    _refused(await at.client.delete(f"{URL}/butler", headers=keyed(3, ROOT)), 404, "not_found")
    assert await _records(at) == []
