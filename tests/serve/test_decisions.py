"""Decisions over HTTP: one with its history, what hangs on it, making and settling them (AP-71, AP-72)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from fleet.config.settings import ServeSettings
from fleet.desk.principals import PrincipalEntry, PrincipalRegistry, hash_token
from fleet.events.decision import DecisionProposed
from fleet.events.envelope import StoredEvent
from fleet.graph.memory.graph import MemoryGraph
from fleet.kernel.clock import SystemClock
from fleet.kernel.ids import Principal
from serve_apps.routes.gateway import build_gateway
from tests.support.bench import World
from tests.support.front import front_parts
from tests.support.graphs import project
from tests.support.rules import files
from tests.support.story_events import DECISION, PLAN, STORY, TASK, story
from tests.support.tool_front import ARCHIE, DEV, ROOT, ToolFront, keyed, tool_front

OF_STORY = f"/api/planner/stories/{STORY}/decisions"
WHY = "It was measured and it holds."
CHOICE: dict[str, Any] = {
    "title": "Fold letters with the standard library",
    "rationale": "It needs no dependency and covers what editors write.",
    "category": "ARCHITECTURE",
}


@pytest.fixture
async def at() -> AsyncIterator[ToolFront]:
    """A story in BUILD that its owner takes commands for."""
    async with tool_front() as front:
        yield front


def _refused(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    return response.json()


async def _post(at: ToolFront, path: str, body: Any, number: int, who: dict[str, str] = ROOT) -> httpx2.Response:
    return await at.client.post(path, json=body, headers=keyed(number, who))


@pytest.mark.rule("AP-72", "AP-2", "GR-70", "RT-4")
async def test_decision_is_proposed_once_for_its_key_and_accepted_by_another(at: ToolFront):
    body = CHOICE | {"affects": [TASK], "links": [{"rel": "DEPENDS_ON", "decision_id": DECISION}]}
    made = await _post(at, OF_STORY, body, 1, DEV)
    assert made.status_code == 201, made.text
    page = made.json()
    id = page["decision"]["decision_id"]
    assert (page["story_id"], page["plan_id"], page["affects"]) == (STORY, PLAN, [TASK])
    assert (page["decision"]["author"], page["decision"]["status"], page["settled"]) == ("user:dev", "PROPOSED", None)
    assert (await _post(at, OF_STORY, body, 1, DEV)).json() == page
    _refused(await _post(at, OF_STORY, CHOICE, 1, DEV), 422, "idempotency_mismatch")
    accepted = await _post(at, f"/api/decisions/{id}/accept", {"note": WHY}, 2)
    assert accepted.status_code == 200, accepted.text
    settled = accepted.json()["settled"]
    assert (settled["verdict"], settled["by"], settled["as_role"], settled["said"]) == (
        "accepted",
        "user:root",
        "architect",
        WHY,
    )
    assert accepted.headers["etag"].startswith('"v')
    again = await at.client.get(f"/api/decisions/{id}", headers=ARCHIE)
    assert again.json() == accepted.json()


@pytest.mark.rule("AP-72", "GR-50")
async def test_rejected_and_superseded_decisions_say_by_whom_and_why(at: ToolFront):
    first, second = [(await _post(at, OF_STORY, CHOICE, n, DEV)).json()["decision"]["decision_id"] for n in (1, 2)]
    rejected = await _post(at, f"/api/decisions/{first}/reject", {"reason": WHY}, 3)
    assert (rejected.json()["decision"]["status"], rejected.json()["settled"]["said"]) == ("REJECTED", WHY)
    await _post(at, f"/api/decisions/{second}/accept", {}, 4)
    replaced = await _post(at, f"/api/decisions/{DECISION}/supersede", {"by_decision_id": second, "reason": WHY}, 5)
    assert replaced.status_code == 200, replaced.text
    assert replaced.json()["superseded"] | {"at": ""} == {
        "by_decision_id": second,
        "by": "user:root",
        "reason": WHY,
        "at": "",
    }
    page = (await at.client.get(f"/api/decisions/{second}", headers=DEV)).json()
    assert page["supersedes"] == [DECISION]


@pytest.mark.rule("AP-72", "AP-36", "AP-23", "AP-25", "AP-29")
async def test_bad_requests_about_decisions_are_refused_and_record_nothing(at: ToolFront):
    before = len(await at.world.types(STORY))
    _refused(await _post(at, OF_STORY, CHOICE | {"rationale": "short"}, 1), 422, "invalid_input")
    _refused(await _post(at, OF_STORY, CHOICE | {"author": "user:ana"}, 2), 422, "invalid_input")
    _refused(await _post(at, OF_STORY, CHOICE | {"affects": ["tk-nobody"]}, 3), 422, "invalid_input")
    _refused(await _post(at, f"/api/decisions/{DECISION}/accept", {}, 4, DEV), 403, "policy_denied")
    twice = _refused(await _post(at, f"/api/decisions/{DECISION}/accept", {}, 5), 409, "version_conflict")
    assert (twice["status"], twice["decision_status"]) == (409, "ACCEPTED")
    _refused(await _post(at, f"/api/decisions/{DECISION}/reject", {"reason": "no"}, 6), 422, "invalid_input")
    _refused(await _post(at, "/api/decisions/de-nobody/accept", {}, 7), 404, "not_found")
    _refused(await at.client.get("/api/decisions/de-nobody", headers=DEV), 404, "not_found")
    _refused(await at.client.get("/api/planner/stories/st-nobody/decisions/cycles", headers=DEV), 404, "not_found")
    deep = await at.client.get(f"/api/decisions/{DECISION}/impact?depth=7", headers=DEV)
    _refused(deep, 422, "invalid_input")
    assert len(await at.world.types(STORY)) == before


@pytest.mark.rule("AP-72", "CX-60")
async def test_secret_in_a_rationale_is_not_recorded(at: ToolFront):
    token = "ghp_" + "a1B2" * 9
    made = await _post(at, OF_STORY, CHOICE | {"rationale": f"The forge takes the token {token} of the team."}, 1)
    assert made.status_code == 201, made.text
    assert token not in made.text
    assert all(token.encode() not in event.body for event in await at.world.events(STORY))


# What the graph knows.


async def _client(world: World, graph: MemoryGraph) -> httpx2.AsyncClient:
    people = {"all": None, "none": frozenset[str]()}
    registry = PrincipalRegistry(
        tuple(
            PrincipalEntry(
                principal=Principal(f"user:{name}"),
                roles=frozenset({"developer"}),
                token_sha256=hash_token(f"{name}-token"),
                projects=projects,
            )
            for name, projects in people.items()
        )
    )
    settings = files().load("serve.yaml", ServeSettings)
    app = build_gateway(world.desk, registry, settings, parts=front_parts(world, graph=graph))
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://fleet")


ALL, NONE = ({"Authorization": f"Bearer {name}-token"} for name in ("all", "none"))


async def _linked(world: World) -> list[StoredEvent]:
    log = story(until="merged")
    for id, links in (
        ("de-dep", ((DECISION, "DEPENDS_ON"), ("de-back", "DEPENDS_ON"))),
        ("de-back", (("de-dep", "DEPENDS_ON"),)),
    ):
        log.add(
            DecisionProposed.model_validate(
                {
                    **CHOICE,
                    "decision_id": id,
                    "affects": [TASK] if id == "de-dep" else [],
                    "links": [{"rel": rel, "decision_id": other} for other, rel in links],
                    "plan_id": PLAN,
                    "author": "agent:architect-001",
                    "origin": "agent",
                }
            )
        )
    await log.write_to(world.log)
    return log.events


@pytest.mark.rule("AP-71", "GR-81", "GR-82", "GR-83")
async def test_impact_critical_decisions_and_cycles_are_read_from_the_graph():
    world, graph = World(), MemoryGraph()
    events = await _linked(world)
    await project(graph, events)
    async with await _client(world, graph) as client:
        impact = (await client.get(f"/api/decisions/{DECISION}/impact", headers=ALL)).json()
        rows = {(row["kind"], row["id"]): row["distance"] for row in impact["items"]}
        assert rows[("Decision", "de-dep")] == 1
        assert rows[("Task", TASK)] <= 2
        assert impact["as_of"] == events[-1].version
        critical = (await client.get(f"{OF_STORY}/critical", headers=ALL)).json()
        # The design that the plan was made for is in it, although it was proposed before there was a plan.
        assert {row["id"] for row in critical["items"]} == {DECISION, "de-dep", "de-back"}
        assert critical["items"][0]["degree"] >= critical["items"][-1]["degree"]
        cycles = (await client.get(f"{OF_STORY}/cycles", headers=ALL)).json()
        assert [row["decisions"] for row in cycles["items"]] == [["de-back", "de-dep"]]


@pytest.mark.rule("AP-6")
async def test_version_beyond_the_log_is_refused_at_once_and_not_waited_for():
    world, graph = World(clock=SystemClock()), MemoryGraph()
    events = await _linked(world)
    await project(graph, events)
    async with await _client(world, graph) as client:
        for path in (f"{OF_STORY}/cycles", f"{OF_STORY}/critical", f"/api/decisions/{DECISION}/impact"):
            beyond = await client.get(path, params={"min_version": events[-1].version + 1}, headers=ALL)
            problem = _refused(beyond, 422, "invalid_input")
            assert (problem["field"], problem["version"]) == ("min_version", events[-1].version)
            there = await client.get(path, params={"min_version": events[-1].version}, headers=ALL)
            assert there.status_code == 200


@pytest.mark.rule("AP-6", "GR-9", "CX-34")
async def test_graph_that_is_behind_is_waited_for_and_then_said_to_be_behind():
    world, graph = World(clock=SystemClock()), MemoryGraph()
    events = await _linked(world)
    await project(graph, events[:-1])
    async with await _client(world, graph) as client:
        assert (await client.get("/api/decisions/de-dep/impact", headers=ALL)).status_code == 200
        late = await client.get("/api/decisions/de-back/impact", headers=ALL)
        problem = _refused(late, 503, "store_unavailable")
        assert f"version {events[-1].version}" in problem["detail"]
        asked = await client.get(f"{OF_STORY}/cycles", params={"min_version": events[-1].version}, headers=ALL)
        _refused(asked, 503, "store_unavailable")


@pytest.mark.rule("AP-25", "CX-16")
async def test_decision_of_a_hidden_project_looks_as_if_it_were_not_there():
    world, graph = World(), MemoryGraph()
    await project(graph, await _linked(world))
    async with await _client(world, graph) as client:
        for path in (f"/api/decisions/{DECISION}", f"/api/decisions/{DECISION}/impact", f"{OF_STORY}/critical"):
            hidden = await client.get(path, headers=NONE)
            missing = await client.get(path.replace(DECISION, "de-nobody").replace(STORY, "st-nobody"), headers=ALL)
            assert _refused(hidden, 404, "not_found")["title"] == _refused(missing, 404, "not_found")["title"]
