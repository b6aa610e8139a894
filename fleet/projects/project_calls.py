"""Calls to role agents that a project makes and no story: charged to its day and to that of the platform (MB-20)."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping
from dataclasses import replace

from fleet.context.service.counts import PromptCounts
from fleet.events.budget import BudgetScope
from fleet.events.step import Cost
from fleet.kernel.clock import Clock
from fleet.kernel.errors import CommitUnknown, FleetError, ModelTimeout, StoreUnavailable
from fleet.kernel.ids import StoryId, derive_id
from fleet.models.port import AgentAnswer, AgentRequest, Agents
from fleet.models.routing.budget import BudgetLimits, Spend, fit_max_tokens
from fleet.models.usage import cost_of
from fleet.owner.budgets import PLATFORM, Budgeting, day_of
from fleet.owner.journal.step_records import cost_of_failure
from fleet.owner.spending.port import DaySpending, SpendingHold
from fleet.story.budgets import actual_spend


class ProjectCalls:
    """Asks agents for a project: the most that a call can cost counts as spent before it, what it used after it.

    Args:
        budgeting: limits, prices and the totals of the day; without totals nothing is charged.
        prompts: counts what is reserved and whether a prompt fits; without it both are estimated (CX-20).
        owner: `<shard>/<incarnation>`, whose calls these are: one that dies in the middle of a call leaves its hold
            spent, and whoever asks again is charged anew (MB-23).
    """

    def __init__(
        self,
        agents: Agents,
        clock: Clock,
        *,
        budgeting: Budgeting | None = None,
        owner: str = "",
        prompts: PromptCounts | None = None,
    ) -> None:
        self._agents, self._clock, self._prompts = agents, clock, prompts
        self._budgeting, self._owner, self._made = budgeting or Budgeting(), owner, itertools.count(1)

    async def ask(self, project_id: str, request: AgentRequest, *, request_id: str, timeout_s: float) -> AgentAnswer:
        """The agent's answer. Raises what `Agents.ask` raises.

        Raises:
            BudgetExceeded: the day of the project or of the platform has no room for a useful reply; nothing was spent.
        """
        spending = self._budgeting.spending
        if self._prompts is not None:
            request = await self._prompts.of_agent(request)
        if spending is None:
            return await self._agents.ask(request, request_id=request_id, timeout_s=timeout_s)
        prompt_tokens = self._budgeting.prompt_tokens(request)
        bounded = self._budgeting.bounded(request, prompt_tokens)
        hold, bounded = await self._held(spending, project_id, bounded, prompt_tokens, request_id)
        try:
            answer = await self._agents.ask(bounded, request_id=request_id, timeout_s=timeout_s)
        except ModelTimeout:
            raise  # nobody knows what the engine did: the hold stays spent
        except FleetError as error:
            await self._settle(spending, hold, actual_spend(cost_of_failure(error), calls=0))
            raise
        await self._settle(spending, hold, actual_spend(_cost(answer), calls=1))
        return answer

    async def _held(
        self, spending: DaySpending, project_id: str, request: AgentRequest, prompt: int, request_id: str
    ) -> tuple[SpendingHold, AgentRequest]:
        """The reservation, and the request with a reply as long as the day has room for."""
        day, price = day_of(self._clock.now_ms()), self._budgeting.price(request.model)
        limits = self._limits(project_id)
        totals = await spending.totals(tuple(limits), day)
        scopes = {_name(scope): (used, limits[scope]) for scope, used in zip(limits, totals, strict=True)}
        most = fit_max_tokens(prompt, request.sampling.max_tokens, scopes=scopes, price=price)
        cost = cost_of(price, tokens_in=prompt, tokens_out=most) if price is not None else 0
        need = Spend(tokens=prompt + most, output_tokens=most, calls=1, cost_microusd=cost)
        ledger = StoryId(derive_id("st", f"project:{project_id}", day))
        # Another one for each call: one that is made again because its answer could not be recorded costs again.
        hold = SpendingHold(f"{request_id}@{self._owner}/{next(self._made)}", ledger, day, tuple(limits), need)
        await spending.reserve(hold, limits=limits)
        return hold, replace(request, sampling=request.sampling.model_copy(update={"max_tokens": most}))

    async def _settle(self, spending: DaySpending, hold: SpendingHold, actual: Spend) -> None:
        # An outage here costs no more than the hold, which stays spent; the answer is there and paid for.
        with contextlib.suppress(StoreUnavailable, CommitUnknown):
            await spending.settle(hold, actual)

    def _limits(self, project_id: str) -> Mapping[BudgetScope, BudgetLimits]:
        limits = self._budgeting.limits
        scopes = (PLATFORM, BudgetScope(kind="project", id=project_id))
        return dict(zip(scopes, (limits.platform, limits.project), strict=True))


def _cost(answer: AgentAnswer) -> Cost:
    return Cost(
        tokens_in=answer.usage.tokens_in,
        tokens_out=answer.usage.tokens_out,
        gpu_ms=answer.gpu_ms,
        cost_microusd=answer.cost_microusd,
        priced=answer.cost_microusd is not None,
        calls=answer.calls,
    )


def _name(scope: BudgetScope) -> str:
    return f"{scope.kind} day"
