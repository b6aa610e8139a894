"""The front of a running fleet is put together without asking a store, and counts what its callers ask (AP-9)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from fleet.config.settings import RateSettings, ServeSettings
from fleet.kernel.clock import MemoryClock
from fleet.wiring.endpoints import Endpoints
from serve_apps.parts import FrontParts, make_front_parts
from serve_apps.routes.gateway import build_gateway
from tests.support.bench import World
from tests.support.front import front_parts
from tests.support.rules import files
from tests.support.tool_front import DEV, REGISTRY


def _endpoints(home: Path) -> Endpoints:
    return Endpoints(
        home=str(home),
        config=None,
        redis_url="redis://:secret@127.0.0.1:1/0",
        cache_url="redis://:secret@127.0.0.1:1/0",
        neo4j_uri="bolt://127.0.0.1:1",
        neo4j_user="neo4j",
        neo4j_password="secret",
        neo4j_database="neo4j",
        node="local",
        pools={},
        council_shards=1,
        lease_ttl_s=15,
        sweep_s=5,
        record_dir=None,
        code_digest="sha256:" + "0" * 64,
        environ={},
    )


async def test_every_part_is_made_and_says_when_its_store_is_away(tmp_path: Path):
    from fleet.wiring.desk.desk import make_desk

    endpoints = _endpoints(tmp_path)
    desk = make_desk(endpoints)
    parts = make_front_parts(endpoints, desk, clock=MemoryClock())
    assert None not in (parts.stories, parts.gates, parts.coach, parts.audit, parts.letters)
    closed: list[bool] = []

    async def close() -> None:
        assert parts.close is not None
        await parts.close()
        closed.append(True)

    served = replace(parts, close=close)
    app = build_gateway(desk, REGISTRY, files().load("serve.yaml", ServeSettings), parts=served)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://fleet") as client,
    ):
        scored = await client.post("/api/stories/score", json={"title": "A title of a story"}, headers=DEV)
        assert scored.status_code == 200
        away = await client.get("/api/approvals", headers=DEV)
        assert (away.status_code, away.json()["code"]) == (503, "store_unavailable")
        assert "127.0.0.1" not in away.text or "secret" not in away.text
    assert closed == [True]


@pytest.mark.rule("AP-9", "AP-40")
async def test_principal_that_asks_too_often_is_told_when_to_come_again():
    world, clock = World(), MemoryClock()
    found = front_parts(world)
    parts = FrontParts(stories=found.stories, gates=found.gates, coach=found.coach, clock=clock)
    settings = files().load("serve.yaml", ServeSettings)
    settings = settings.model_copy(update={"rate": RateSettings(requests_per_minute=3, streams=1)})
    app = build_gateway(world.desk, REGISTRY, settings, parts=parts)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://fleet") as client:
        statuses = [(await client.get("/api/me", headers=DEV)).status_code for _ in range(4)]
        assert statuses == [200, 200, 200, 429]
        refused = await client.get("/api/me", headers=DEV)
        assert refused.json()["code"] == "rate_limited"
        clock.advance(int(refused.headers["retry-after"]))
        assert (await client.get("/api/me", headers=DEV)).status_code == 200


async def test_part_that_is_missing_is_said_to_be():
    app = build_gateway(World().desk, REGISTRY, files().load("serve.yaml", ServeSettings))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://fleet") as client:
        for path in ("/api/approvals", "/api/workflow/stats"):
            response = await client.get(path, headers=DEV)
            assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
        scored = await client.post("/api/stories/score", json={"title": "A title"}, headers=DEV)
        assert scored.status_code == 503
