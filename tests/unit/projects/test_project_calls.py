"""What a project asks of models is charged to its day and to that of the platform (MB-20, MB-22, MB-23)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fleet.events.budget import BudgetScope
from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import BudgetExceeded, ModelTimeout, ModelUnavailable, ReplyMalformed
from fleet.models.chat import Sampling
from fleet.models.port import AgentRequest
from fleet.models.profiles import Budgets
from fleet.models.routing.budget import BudgetLimits, BudgetTotals
from fleet.owner.budgets import PLATFORM, Budgeting, day_of
from fleet.owner.spending.memory import MemoryDaySpending
from fleet.owner.workbench import seat
from fleet.planning.project_state import DEFAULT_PROJECT
from fleet.projects.project_calls import ProjectCalls
from tests.support.bench import ScriptedAgents, World
from tests.unit.projects.test_project_owner import discovered

SHOP = BudgetScope(kind="project", id="pr-shop1")


class Calls:
    """Project calls over totals that are kept, and what stands in them."""

    def __init__(self, answer: Callable[[AgentRequest], Any], **project: int) -> None:
        self.clock, self.days = MemoryClock(), MemoryDaySpending()
        self.agents = ScriptedAgents(answer)
        limits = Budgets(project=BudgetLimits.model_validate(project))
        self.budgeting = Budgeting(limits=limits, spending=self.days)
        self.calls = ProjectCalls(self.agents, self.clock, budgeting=self.budgeting, owner="council:0/a1")

    async def ask(self, name: str = "di-1/propose-1", *, max_tokens: int = 2048) -> None:
        who = seat("planner")
        sampling = Sampling(max_tokens=max_tokens, seed=1)
        request = AgentRequest(
            kind="advise", role=who.role, principal=who.principal, shared="A goal.", own="", sampling=sampling
        )
        await self.calls.ask(SHOP.id, request, request_id=name, timeout_s=9)

    async def totals(self, scope: BudgetScope) -> BudgetTotals:
        return (await self.days.totals([scope], day_of(self.clock.now_ms())))[0]


@pytest.mark.rule("MB-20", "MB-22")
async def test_call_of_a_project_counts_for_it_and_for_the_platform() -> None:
    held: list[int] = []
    at = Calls(lambda _: {"ok": 1})

    async def looked() -> None:
        held.append((await at.totals(SHOP)).reserved.tokens)

    inner = at.agents.ask

    async def ask(*args: Any, **named: Any) -> Any:
        await looked()
        return await inner(*args, **named)

    at.agents.ask = ask  # type: ignore[method-assign]
    await at.ask()
    await at.ask()
    assert min(held) > 2048, "prompt and reply are held while the call is made"
    for scope in (SHOP, PLATFORM):
        totals = await at.totals(scope)
        assert (totals.spent.tokens, totals.spent.calls, totals.reserved.tokens) == (30, 2, 0)


@pytest.mark.rule("MB-22")
async def test_reply_is_as_long_as_the_day_has_room_for_and_without_room_nothing_is_asked() -> None:
    at = Calls(lambda _: {"ok": 1}, tokens=2000)
    await at.ask()
    assert 256 <= at.agents.requests[0].sampling.max_tokens < 1000
    small = Calls(lambda _: {"ok": 1}, tokens=1100)
    with pytest.raises(BudgetExceeded):
        await small.ask()
    assert small.agents.requests == []
    assert (await small.totals(SHOP)).reserved.tokens == 0


USED = {"usage": {"tokens_in": 70, "tokens_out": 30}, "spent": {"calls": 2}}


@pytest.mark.rule("MB-23")
@pytest.mark.parametrize(
    ("error", "spent", "is_held"),
    [
        (ModelUnavailable("no engine is up"), 0, False),
        (ReplyMalformed("no JSON", **USED), 100, False),
        (ModelTimeout("it took too long"), 0, True),
    ],
    ids=["nothing-was-made", "a-reply-of-no-use", "nobody-knows"],
)
async def test_call_that_fails_costs_what_is_known_of_it(error: Exception, spent: int, is_held: bool) -> None:
    at = Calls(lambda _: error)
    with pytest.raises(type(error)):
        await at.ask()
    totals = await at.totals(SHOP)
    assert totals.spent.tokens == spent
    assert (totals.reserved.tokens > 0) is is_held


@pytest.mark.rule("PL-54", "MB-25")
async def test_project_whose_day_is_used_up_gets_the_proposal_of_the_rules() -> None:
    days = MemoryDaySpending()
    limits = Budgets(project=BudgetLimits(tokens=500))
    world = World(budgeting=Budgeting(limits=limits, spending=days))
    agents = ScriptedAgents(lambda _: ModelUnavailable("must not be asked"))
    owner = world.project_owner(with_model=True, agents=agents)
    discovery_id = await discovered(owner)
    await owner.work()
    found, proposal = await world.projects.discovery(DEFAULT_PROJECT, discovery_id)
    assert agents.requests == []
    assert (found.status, proposal.source) == ("proposed", "template")
    assert "budget_exceeded" in (found.note or "")
