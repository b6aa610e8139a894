"""Budgets and usage over HTTP (AP-87)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from fleet.config.settings import ServeSettings
from fleet.desk.budgets import BudgetDesk
from fleet.desk.principals import PrincipalEntry, PrincipalRegistry, hash_token
from fleet.kernel.clock import SystemClock
from fleet.kernel.ids import Principal
from fleet.models.profiles import Budgets
from fleet.owner.shard import CouncilShard
from fleet.owner.spending.memory import MemoryDaySpending
from serve_apps.routes.gateway import build_gateway
from tests.support.bench import World
from tests.support.front import front_parts
from tests.support.rules import files
from tests.support.story_events import STORY, story

ANA = {"Authorization": "Bearer ana-token"}
DEV = {"Authorization": "Bearer dev-token"}
REGISTRY = PrincipalRegistry(
    tuple(
        PrincipalEntry(principal=Principal(f"user:{name}"), roles=frozenset({role}), token_sha256=hash_token(token))
        for name, role, token in (("ana", "po", "ana-token"), ("dev", "architect", "dev-token"))
    )
)


def keyed(number: int, who: dict[str, str] = ANA) -> dict[str, str]:
    return who | {"Idempotency-Key": f"key-number-{number}"}


@asynccontextmanager
async def front(*, wired: bool = True) -> AsyncIterator[httpx2.AsyncClient]:
    world = World(clock=SystemClock())
    await story(until="scored").write_to(world.log)
    budgets = BudgetDesk(log=world.log, spending=MemoryDaySpending(), limits=Budgets(), clock=world.clock)
    settings = files().load("serve.yaml", ServeSettings)
    app = build_gateway(world.desk, REGISTRY, settings, budgets=budgets if wired else None, parts=front_parts(world))
    shard = CouncilShard(
        name="council:0",
        incarnation="a1",
        log=world.log,
        leases=world.leases,
        inbox=world.inbox,
        clock=world.clock,
        make_bench=world.bench,
        commands=world.commands,
    )
    task = asyncio.create_task(shard.run())
    try:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://fleet") as client:
            yield client
    finally:
        await shard.drain()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def line(body: dict[str, Any], scope: str, quantity: str) -> dict[str, Any]:
    (found,) = [x for x in body["items"] if (x["scope"], x["quantity"]) == (scope, quantity)]
    return found


@pytest.mark.rule("AP-87", "MB-24")
async def test_budget_of_a_story_is_shown_lowered_and_raised_by_its_po() -> None:
    async with front() as at:
        found = (await at.get(f"/api/budgets?scope=story:{STORY}", headers=ANA)).json()
        assert line(found, "story", "tokens") | {"id": ""} == {
            "scope": "story",
            "id": "",
            "quantity": "tokens",
            "limit": 20_000_000,
            "spent": 0,
            "reserved": 0,
            "left": 20_000_000,
        }
        url = f"/api/budgets/story/{STORY}"
        for number, tokens in enumerate((500, 900)):
            answer = await at.put(url, json={"limits": {"tokens": tokens}}, headers=keyed(number))
            assert answer.status_code == 200, answer.text
            assert line(answer.json(), "story", "tokens")["limit"] == tokens
        refused = await at.put(url, json={"limits": {"tokens": 5}}, headers=keyed(9, DEV))
        assert (refused.status_code, refused.json()["code"]) == (403, "policy_denied")


@pytest.mark.rule("AP-87", "MB-30")
async def test_usage_is_grouped_by_a_key_of_the_ledger() -> None:
    async with front() as at:
        found = await at.get(f"/api/usage?group_by=kind&storyId={STORY}", headers=ANA)
        assert found.json() == {"group_by": "kind", "story_id": STORY, "items": []}
        assert (await at.get("/api/budgets", headers=ANA)).json()["items"] == []


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/api/budgets?scope=apples", None, 422),
        ("GET", "/api/budgets?scope=story:st-none1", None, 404),
        ("GET", "/api/usage?group_by=apples", None, 422),
        ("PUT", "/api/budgets/platform/main", {"limits": {"tokens": 1}}, 422),
        ("PUT", "/api/budgets/task/tk-none1", {"limits": {"tokens": 1}}, 422),
        ("PUT", "/api/budgets/task/tk-none1", {"limits": {"tokens": 1}, "story_id": STORY}, 404),
        ("PUT", f"/api/budgets/story/{STORY}", {"limits": {"apples": 1}}, 422),
        ("PUT", f"/api/budgets/story/{STORY}", {"limits": {}}, 422),
    ],
)
async def test_bad_input_is_refused(method: str, path: str, body: dict[str, Any] | None, status: int) -> None:
    async with front() as at:
        answer = await at.request(method, path, json=body, headers=keyed(1))
        assert answer.status_code == status, answer.text
        assert answer.json()["code"]


async def test_front_without_budgets_says_so() -> None:
    async with front(wired=False) as at:
        assert (await at.get("/api/budgets", headers=ANA)).status_code == 503
        assert (await at.get("/api/budgets")).status_code == 401
