"""One story that cannot be read takes no list from anybody: the others are shown, and it is named (AP-41)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from fleet.config.settings import ServeSettings
from fleet.desk.budgets import BudgetDesk
from fleet.kernel.clock import SystemClock
from fleet.models.profiles import Budgets
from fleet.owner.spending.memory import MemoryDaySpending
from serve_apps.routes.gateway import build_gateway
from tests.support.bench import World
from tests.support.damaged import DAMAGED, DamagedLog
from tests.support.front import front_parts
from tests.support.rules import files
from tests.support.story_events import STORY, story
from tests.support.tool_front import DEV, REGISTRY, ROOT

pytestmark = pytest.mark.rule("AP-41")
_STREAMS = ("/api/events/stream",)
_NAMED = {"project_id": "pr-default", "role": "architect"}


@asynccontextmanager
async def _front() -> AsyncIterator[httpx2.AsyncClient]:
    """The front over a story as any other, and one that was altered after the front had read it."""
    log = DamagedLog()
    world = World(clock=SystemClock(), log=log)
    await story(until="planned").write_to(log)
    budgets = BudgetDesk(log=log, spending=MemoryDaySpending(), limits=Budgets(), clock=world.clock)
    settings = files().load("serve.yaml", ServeSettings)
    app = build_gateway(world.desk, REGISTRY, settings, budgets=budgets, parts=front_parts(world))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://fleet") as client:
        await log.alter()
        yield client


async def _lists(client: httpx2.AsyncClient) -> list[str]:
    """Every path that reads something of many stories: without an id of one thing, or of a project or a role."""
    document = (await client.get("/api/openapi.json", headers=ROOT)).json()
    found: list[str] = []
    for path, operations in document["paths"].items():
        get: dict[str, Any] = operations.get("get", {})
        needed = {p["name"] for p in get.get("parameters", ()) if p.get("required") and p["in"] != "header"}
        if get and needed <= _NAMED.keys() and path not in _STREAMS:
            found.append(path.format(**_NAMED))
    return found


async def test_lists_of_the_front_answer_while_one_story_is_damaged():
    async with _front() as client:
        paths = await _lists(client)
        assert {"/api/approvals", "/api/councils", "/api/usage", "/api/projects/pr-default/metrics"} <= set(paths)
        for path in paths:
            response = await client.get(path, headers=ROOT)
            # What this front lacks (tools) is no damage.
            assert response.status_code < 500 or response.json()["code"] == "sandbox_unavailable", response.text


async def test_list_of_stories_shows_the_others_and_names_the_damaged_one_to_who_sees_everything():
    async with _front() as client:
        listed = (await client.get("/api/planner/stories", headers=ROOT)).json()
        assert [line["story_id"] for line in listed["items"]] == [STORY]
        (damaged,) = listed["damaged"]
        assert (damaged["story_id"], damaged["code"]) == (DAMAGED, "log_corrupted")
        assert "fleet audit verify" in damaged["message"]
        seen = (await client.get("/api/planner/stories", headers=DEV)).json()
        assert [line["story_id"] for line in seen["items"]] == [STORY]
        assert (await client.get(f"/api/planner/stories/{DAMAGED}", headers=ROOT)).status_code == 500


async def test_watch_of_all_stories_goes_on_beside_a_damaged_one():
    log = DamagedLog()
    world = World(clock=SystemClock(), log=log)
    told = story(until="scored")
    await told.write_to(log)
    await log.alter()

    async def everything(_: object) -> bool:
        return True

    async def first() -> str:
        async for event in world.desk.watch_many(everything, after={}, idle_s=0.1):
            if event is not None:
                return event.stream.entity
        raise AssertionError("the watch ended")

    assert await asyncio.wait_for(first(), timeout=30) == STORY
