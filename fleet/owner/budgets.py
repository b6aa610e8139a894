"""Budgets as the owner of a story applies them: what a call may use, and what the day's totals have to know of it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from fleet.events.budget import BudgetExhausted, BudgetScope, UsageAdjusted
from fleet.events.step import StepFinished
from fleet.kernel.errors import BudgetExceeded, CommitUnknown, FleetError, StoreUnavailable
from fleet.kernel.ids import StepId, StoryId
from fleet.models.engine_config import Price
from fleet.models.port import AgentRequest
from fleet.models.profiles import USUAL_LINK, Budgets, ChainEntry, ModelsConfig
from fleet.models.prompts.pack_readers import PROMPT_FRAME_TOKENS
from fleet.models.routing.budget import QUANTITIES, BudgetLimits, BudgetTotals, Spend
from fleet.models.routing.routing import estimate_tokens, reply_room
from fleet.models.usage import dearest
from fleet.owner.spending.port import DaySpending, SpendingHold
from fleet.story.allowance import Allowance, CallNeed, allow_call
from fleet.story.budgets import actual_spend, reserved_spend
from fleet.story.state import StoryState

PLATFORM = BudgetScope(kind="platform", id="main")
_RUN_PROFILE = "profile"


def day_of(now_ms: int) -> str:
    """The day, UTC, as `YYYY-MM-DD`."""
    return datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y-%m-%d")


def hold_id_of(state: StoryState, step_id: str, epoch: int) -> str:
    """The id of one owner's reservation for a step: asked again by that owner it counts once, by the next one anew."""
    return f"{state.story_id}/{step_id}/{epoch}"


@dataclass(frozen=True, slots=True)
class Budgeting:
    """The configured limits and prices, and the totals of the day where there are any."""

    limits: Budgets = Budgets()
    models: ModelsConfig | None = None
    """For prices; None knows none, and tokens bind."""
    spending: DaySpending | None = None
    """None leaves the budgets of platform and projects out."""

    def prompt_tokens(self, request: AgentRequest) -> int:
        """An upper guess of the prompt that the request becomes; by its count where it was counted (CX-20, MB-22)."""
        own = estimate_tokens("".join(request.texts)) if request.counted is None else request.counted
        return own + PROMPT_FRAME_TOKENS

    def bounded(self, request: AgentRequest, prompt_tokens: int) -> AgentRequest:
        """The request with a reply as long as an engine that may answer it can give (MB-44).

        Args:
            prompt_tokens: as `prompt_tokens` guesses them of this request.
        """
        rooms = [reply_room(request.kind, link, prompt_tokens=prompt_tokens) for link in self._links(request)]
        return bounded_request(request, max(rooms))

    def _links(self, request: AgentRequest) -> Sequence[ChainEntry]:
        """The engines that may answer; one as most are where nothing is known of them."""
        if self.models is None:
            return (USUAL_LINK,)
        entries: list[ChainEntry] = []
        for name in (request.policy,) if request.policy else tuple(self.models.policies):
            # An unknown profile is refused by whoever carries out the call.
            with contextlib.suppress(FleetError):
                entries += self.models.chain_for(name, request.model).entries
        return entries or (USUAL_LINK,)

    def price(self, model: str | None) -> Price | None:
        """The dearest price that a call of a run with this model profile may be charged."""
        if self.models is None:
            return None
        names = {entry.engine_id for policy in self.models.policies.values() for entry in policy.chain}
        names |= {model} if model is not None else set()
        try:
            engines = [self.models.engine(name) for name in sorted(names - {_RUN_PROFILE})]
        except FleetError:
            return None  # an unknown profile is refused by whoever carries out the call
        return dearest(engine.price for engine in engines if engine.price is not None)

    async def allow(self, state: StoryState, need: CallNeed, *, epoch: int, now_ms: int) -> Allowance:
        """What the call may use. It is held in the day's totals from here on; the caller's append holds the rest.

        Raises BudgetExceeded when a scope of the story, the platform or the project cannot hold a useful call.
        """
        if self.spending is None:
            return allow_call(state, self.limits, need, now_ms=now_ms)
        bounds = await self._day(self.spending, state, now_ms)
        allowance = allow_call(state, self.limits, need, now_ms=now_ms, outer=bounds)
        held = reserved_spend(allowance.reserve, calls=1)
        hold = self._hold(state, need.step_id, held, epoch=epoch, now_ms=now_ms)
        await self.spending.reserve(hold, limits={scope: limits for scope, (_, limits) in bounds.items()})
        return allowance

    async def hold_again(self, state: StoryState, step_id: StepId, *, epoch: int, now_ms: int) -> None:
        """A call that is on record as started is held in the day's totals for this owner too."""
        step = state.steps[step_id]
        if self.spending is not None:
            need = reserved_spend(step.started.reserve, calls=1)
            hold = self._hold(state, step_id, need, epoch=epoch, now_ms=now_ms)
            await self.spending.reserve(hold, limits=self._day_limits(state))

    async def release(self, state: StoryState, step_id: StepId, *, epoch: int, now_ms: int) -> None:
        """The call was never made: nothing of it is held in the day's totals."""
        if self.spending is not None:
            await self.spending.settle(self._hold(state, step_id, Spend(), epoch=epoch, now_ms=now_ms), Spend())

    async def settle(self, state: StoryState, finished: StepFinished, *, epoch: int, now_ms: int) -> None:
        """The day's totals know what the call really used."""
        if self.spending is not None:
            hold = self._hold(state, finished.step_id, Spend(), epoch=epoch, now_ms=now_ms)
            await self.spending.settle(hold, actual_spend(finished.cost, calls=1))

    async def charge(self, state: StoryState, used: UsageAdjusted, *, epoch: int, now_ms: int) -> None:
        """The day's totals know what calls used that were not answered, beside what is held for their step.

        An outage of their store is passed over: the story has the use on record, and its caller has the error of the
        model to tell.
        """
        if self.spending is None:
            return
        hold = self._hold(state, f"{used.step_id}#{state.version}", Spend(), epoch=epoch, now_ms=now_ms)
        with contextlib.suppress(StoreUnavailable, CommitUnknown):
            await self.spending.reserve(hold, limits={})
            await self.spending.settle(hold, Spend(**{k: v for k, v in used.delta.items() if k in QUANTITIES}))

    async def settle_lost(self, state: StoryState, step_id: StepId, epochs: Sequence[int], actual: Spend) -> None:
        """The day's totals know what the calls of these earlier owners really used, all together."""
        if self.spending is None:
            return
        for number, epoch in enumerate(epochs):
            hold = self._hold(state, step_id, Spend(), epoch=epoch, now_ms=0)
            await self.spending.settle(hold, Spend() if number else actual)

    async def catch_up(self, state: StoryState) -> None:
        """Holds whose call ended on record, or was never started on record, are settled: their owner could not."""
        if self.spending is None:
            return
        for hold in await self.spending.open_holds(state.story_id):
            name, _, epoch = hold.hold_id.removeprefix(f"{state.story_id}/").rpartition("/")
            step, held = state.steps.get(name), state.budgets.holds.get(name)
            if step is None:
                await self.spending.settle(hold, Spend())
            elif step.finished is not None and int(epoch) not in (held.lost if held else ()):
                await self.spending.settle(hold, actual_spend(step.finished.cost, calls=1))

    def _hold(self, state: StoryState, step_id: str, need: Spend, *, epoch: int, now_ms: int) -> SpendingHold:
        return SpendingHold(
            hold_id=hold_id_of(state, step_id, epoch),
            story_id=state.story_id,
            day=day_of(now_ms),
            scopes=day_scopes(state),
            need=need,
        )

    def _day_limits(self, state: StoryState) -> Mapping[BudgetScope, BudgetLimits]:
        limits: Sequence[BudgetLimits] = (self.limits.platform, self.limits.project)
        return dict(zip(day_scopes(state), limits, strict=True))

    async def _day(
        self, spending: DaySpending, state: StoryState, now_ms: int
    ) -> dict[BudgetScope, tuple[BudgetTotals, BudgetLimits]]:
        day = day_of(now_ms)
        limits = self._day_limits(state)
        totals = await spending.totals(tuple(limits), day)
        return {scope: (used, limits[scope]) for scope, used in zip(limits, totals, strict=True)}


def day_scopes(state: StoryState) -> tuple[BudgetScope, ...]:
    """The scopes beyond a story that its calls count in."""
    return (PLATFORM, BudgetScope(kind="project", id=state.project_id))


def bounded_request(request: AgentRequest, max_tokens: int) -> AgentRequest:
    """The request with at most this many tokens of reply; the very same one when it asks for no more."""
    if max_tokens >= request.sampling.max_tokens:
        return request
    return replace(request, sampling=request.sampling.model_copy(update={"max_tokens": max_tokens}))


def refusal_of(story_id: StoryId, error: BudgetExceeded, exhausted: BudgetExhausted) -> BudgetExceeded:
    """The error of a call that no budget holds, with the command that raises the limit."""
    scope = exhausted.scope
    where = "" if scope.kind == "story" else f" --scope {scope.kind}:{scope.id}"
    option = {"cost_microusd": "cost-usd"}.get(exhausted.limit, exhausted.limit.replace("_", "-"))
    return BudgetExceeded(
        f"{error.message}. Nothing is lost: raise it with `fleet budget set {story_id}{where} --{option} N`, "
        "and the story goes on",
        **error.details,
    )
