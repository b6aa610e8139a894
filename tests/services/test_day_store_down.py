"""The totals of the day in a Redis that goes away while calls are under way."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from cluster.local.valkey import StoreKind, Valkey
from fleet.kernel.errors import ModelUnavailable, StoreUnavailable
from fleet.log.redis.connection import connect_redis
from fleet.models.profiles import Budgets
from fleet.models.routing.budget import BudgetLimits
from fleet.owner.budgets import PLATFORM, Budgeting, day_of
from fleet.owner.spending.redis import RedisDaySpending
from tests.support.bench import ScriptedAgents, World
from tests.support.story_events import STORY, story
from tests.unit.owner.test_budgets import SCOPE, WORK, request

USED: dict[str, Any] = {"usage": {"tokens_in": 5, "tokens_out": 4}, "spent": {"calls": 2, "gpu_ms": 60}}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncGenerator[Valkey]:
    valkey = Valkey(StoreKind.LOG, tmp_path / "redis")
    await valkey.start()
    yield valkey
    await valkey.stop()


@pytest.mark.rule("MB-15", "MB-22")
async def test_error_of_a_model_is_told_while_the_store_of_the_day_is_down(server: Valkey) -> None:
    client = connect_redis(server.url)
    spending = RedisDaySpending(client, margin_s=0.2)
    limits = Budgets(story=BudgetLimits(gpu_ms=1000))
    world = World(budgeting=Budgeting(limits=limits, spending=spending), agents=ScriptedAgents(lambda _: {"ok": 1}))
    await story(until="created").write_to(world.log)
    journal = await world.journal()
    calls: list[object] = []

    def answer(call: object) -> ModelUnavailable:
        calls.append(call)
        if len(calls) == 2:
            server.kill()
        return ModelUnavailable("the model is down", **USED)

    world.agents.answer = answer
    for _ in range(2):
        with pytest.raises(ModelUnavailable, match="the model is down"):
            await journal.ask("a", request(), WORK)
    with pytest.raises(StoreUnavailable):
        await spending.open_holds(STORY)
    spent = journal.state.budgets.usage(SCOPE).spent
    assert (spent.gpu_ms, spent.calls) == (120, 4)
    await server.stop()  # nothing is left to end: this collects its exit status
    await server.start()
    (day,) = await spending.totals([PLATFORM], day_of(world.clock.now_ms()))
    assert (day.spent.gpu_ms, day.spent.calls) == (60, 2)
    await client.aclose()
