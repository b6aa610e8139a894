"""Figures of context over HTTP: for those who see the projects, the same on every replica, live (AP-99)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from fleet.config.settings import ServeSettings
from fleet.desk.principals import PrincipalEntry, PrincipalRegistry, hash_token
from fleet.graph.memory.graph import MemoryGraph
from fleet.kernel.clock import SystemClock
from fleet.kernel.ids import EntityId, Principal, StoryId
from serve_apps.routes.gateway import build_gateway
from tests.support.bench import World
from tests.support.front import front_parts
from tests.support.rules import files
from tests.support.story_events import STORY, StoryLog, created_payload
from tests.support.tool_front import serving
from tests.unit.report.test_context_figures import pack, told

URL = "/api/context/stats"
SHOP = StoryId("st-shop1")
SEES: dict[str, frozenset[str] | None] = {
    "all": None,
    "mine": frozenset({"pr-default"}),
    "shop": frozenset({"pr-shop"}),
    "none": frozenset(),
}
REGISTRY = PrincipalRegistry(
    tuple(
        PrincipalEntry(
            principal=Principal(f"user:{name}"),
            roles=frozenset({"architect"}),
            token_sha256=hash_token(f"{name}-token"),
            projects=projects,
        )
        for name, projects in SEES.items()
    )
)


def _who(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}-token"}


async def _world() -> World:
    """A story in pr-default with packs and a summary, one in pr-shop with a single pack and a secret."""
    world = World(clock=SystemClock())
    await told(StoryLog()).write_to(world.log)
    for number in (1, 2):
        await world.blobs.put(f"summary {number}".encode())
    content = created_payload()
    shop = content.model_copy(update={"project_id": EntityId("pr-shop")})
    log = StoryLog(SHOP).add(shop, pack(2, as_role="architect", phase="DESIGN"))
    await log.write_to(world.log)
    return world


def _app(world: World, graph: MemoryGraph | None = None) -> FastAPI:
    settings = files().load("serve.yaml", ServeSettings)
    return build_gateway(world.desk, REGISTRY, settings, parts=front_parts(world, graph=graph))


@asynccontextmanager
async def _client(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://fleet") as client:
        yield client


async def _stats(client: httpx2.AsyncClient, who: str, **params: Any) -> dict[str, Any]:
    response = await client.get(URL, headers=_who(who), params=params)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.rule("AP-99")
async def test_packs_by_role_and_phase_are_told_with_what_did_not_fit_and_what_was_redacted():
    async with _client(_app(await _world())) as client:
        found = await _stats(client, "mine")
    assert [(c["role"], c["phase"], c["packs"]) for c in found["packs"]] == [
        ("developer", "BUILD", 3),
        ("qa", "TEST", 1),
    ]
    cell = found["packs"][0]
    assert (cell["tokens_median"], cell["tokens_largest"], cell["budget_median"]) == (2000, 3000, 4096)
    assert (cell["used"], cell["dropped"]) == (round(6000 / (3 * 4096), 4), 6)
    assert found["dropped"] == {"DECISIONS_GLOBAL": 6}
    assert found["redactions"] == {"AWS": 2, "JWT": 1}
    summed = found["compression"]
    assert (summed["summaries"], summed["ratio"], summed["recall"], summed["targets_missed"]) == (2, 0.5, 0.5, 1)
    assert summed["recall_by_class"] == {"decision": 0.5, "path": 1.0}
    assert found["projection"] == {"lag_events": 8, "streams_behind": 1, "away": None}


@pytest.mark.rule("AP-99", "AP-1", "CX-16")
async def test_nobody_sees_a_figure_of_a_project_that_is_hidden():
    async with _client(_app(await _world())) as client:
        everything, mine = await _stats(client, "all"), await _stats(client, "mine")
        shop, nothing = await _stats(client, "shop"), await _stats(client, "none")
        assert (everything["projects"], everything["stories"]) == (None, 2)
        assert (mine["projects"], mine["stories"]) == (["pr-default"], 1)
        assert ([c["role"] for c in shop["packs"]], shop["redactions"]) == (["architect"], {})
        assert (nothing["stories"], nothing["packs"], nothing["projection"]["lag_events"]) == (0, [], 0)
        assert await _stats(client, "all", project="pr-shop") == shop | {"projects": ["pr-shop"]}
        both = await _stats(client, "all", project=["pr-shop", "pr-default"])
        assert both["packs"] == everything["packs"]
        for name in ("pr-shop", "pr-nowhere", "x" * 300):
            response = await client.get(URL, headers=_who("mine"), params={"project": ["pr-default", name]})
            assert (response.status_code, response.json()["code"]) == (404, "not_found")
            assert name[:80] in response.json()["detail"]


@pytest.mark.rule("AP-99", "AP-98")
async def test_packs_that_were_given_are_counted_for_those_who_see_their_project():
    app = _app(await _world())
    async with _client(app) as client:
        for _ in range(4):
            got = await client.get(f"/api/context/{STORY}/developer/BUILD", headers=_who("mine"))
            assert got.status_code == 200, got.text
        own, other = await _stats(client, "mine"), await _stats(client, "shop")
        assert (own["activity"]["queries"], own["activity"]["cache_hit_rate"]) == (4, 0.75)
        assert own["activity"]["p95_ms"] is not None
        assert own["activity"]["since"]
        assert (other["activity"]["queries"], other["activity"]["cache_hit_rate"]) == (0, None)


@pytest.mark.rule("AP-98", "AP-99")
async def test_record_is_told_while_the_graph_is_away_and_the_same_by_every_replica():
    world, graph = await _world(), MemoryGraph()
    async with _client(_app(world, graph)) as one, _client(_app(world, graph)) as other:
        first, second = await _stats(one, "all"), await _stats(other, "all")
        # What a builder of packs did since it began is its own; everything else is the same.
        assert first | {"activity": None} == second | {"activity": None}
        graph.is_down = True
        away = await _stats(one, "all")
        assert away["packs"] == first["packs"]
        assert (away["projection"]["lag_events"], away["projection"]["streams_behind"]) == (None, None)
        assert away["projection"]["away"]


@pytest.mark.rule("AP-99", "AP-40")
async def test_front_without_figures_says_so_and_bad_questions_are_refused_in_words():
    world = await _world()
    settings = files().load("serve.yaml", ServeSettings)
    async with _client(build_gateway(world.desk, REGISTRY, settings)) as client:
        response = await client.get(URL, headers=_who("all"))
        assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
    async with _client(_app(world)) as client:
        too_many = await client.get(URL, headers=_who("all"), params={"project": ["pr-default"] * 51})
        assert (too_many.status_code, too_many.json()["code"]) == (422, "invalid_input")
        assert (await client.get(URL)).status_code == 401


@pytest.mark.rule("AP-99", "AP-100", "AP-101", "AP-104")
async def test_event_of_group_context_tells_that_there_are_new_figures():
    world = await _world()
    async with serving(_app(world)) as url, httpx2.AsyncClient(base_url=url, timeout=20) as client:
        params = {"projectId": ["pr-default", "pr-shop"], "types": ["ContextPackBuilt", "SummaryRecorded"]}
        async with client.stream("GET", "/api/events/stream", headers=_who("all"), params=params) as stream:
            lines = stream.aiter_lines()
            async with aclosing(lines), asyncio.timeout(20):  # type: ignore[type-var]
                while not (await anext(lines)).startswith("id: "):
                    pass
                own = told(StoryLog())
                before = own.version
                own.add(created_payload(), pack(9, phase="TEST"))
                await own.write_to(world.log, after=before)
                seen = [await anext(lines) for _ in range(4)]
        assert "event: context" in seen
        (data,) = [json.loads(line.removeprefix("data: ")) for line in seen if line.startswith("data: ")]
        assert (data["type"], data["stream"]) == ("ContextPackBuilt", f"story:{STORY}")
        cells = [(c["role"], c["phase"]) for c in (await _stats(client, "mine"))["packs"]]
        assert ("developer", "TEST") in cells
        hidden = await client.get("/api/events/stream", headers=_who("mine"), params=params)
        assert (hidden.status_code, hidden.json()["code"]) == (404, "not_found")
