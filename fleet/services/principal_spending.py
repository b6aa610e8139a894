"""What principals spend on model calls outside of stories, per day: held before a call, settled after it (MB-22)."""

from __future__ import annotations

from collections.abc import Mapping

from fleet.events import BudgetScope
from fleet.ids import Principal, StoryId, derive_id
from fleet.models import BudgetLimits, Budgets, Price, Spend, cost_of, fit_max_tokens
from fleet.ports import Clock, DaySpending, SpendingHold
from fleet.services.budgeting import PLATFORM, day_of

__all__ = ["PrincipalSpending"]


class PrincipalSpending:
    """The day's budgets of the platform and of each principal, over the totals that stories count in too."""

    def __init__(self, days: DaySpending, budgets: Budgets, clock: Clock) -> None:
        self._days, self._budgets, self._clock = days, budgets, clock

    async def fitted(self, who: Principal, *, prompt_tokens: int, max_tokens: int, price: Price | None) -> int:
        """The longest reply, at most `max_tokens`, that the day has room for; BudgetExceeded below a useful one."""
        day = day_of(self._clock.now_ms())
        limits = self._limits(who)
        scopes = {_name(scope): (await self._days.totals(scope, day), bound) for scope, bound in limits.items()}
        return fit_max_tokens(prompt_tokens, max_tokens, scopes=scopes, price=price)

    async def hold(
        self, who: Principal, call_id: str, *, prompt_tokens: int, max_tokens: int, price: Price | None
    ) -> SpendingHold:
        """The most that the call can cost counts as spent from here on; BudgetExceeded when a budget cannot hold it."""
        cost = cost_of(price, tokens_in=prompt_tokens, tokens_out=max_tokens) if price is not None else 0
        need = Spend(tokens=prompt_tokens + max_tokens, output_tokens=max_tokens, calls=1, cost_microusd=cost)
        day = day_of(self._clock.now_ms())
        limits = self._limits(who)
        hold = SpendingHold(hold_id=call_id, story_id=_ledger_of(who, day), day=day, scopes=tuple(limits), need=need)
        await self._days.reserve(hold, limits=limits)
        return hold

    async def settle(self, hold: SpendingHold, actual: Spend) -> None:
        """The hold is replaced by what was used; a hold that is never settled stays spent (MB-23)."""
        await self._days.settle(hold, actual)

    def _limits(self, who: Principal) -> Mapping[BudgetScope, BudgetLimits]:
        scopes = (PLATFORM, BudgetScope(kind="principal", id=who))
        return dict(zip(scopes, (self._budgets.platform, self._budgets.principal), strict=True))


def _ledger_of(who: Principal, day: str) -> StoryId:
    """What the port groups open holds by: here, the calls of one principal on one day."""
    return StoryId(derive_id("st", f"principal:{who}", day))


def _name(scope: BudgetScope) -> str:
    return "platform day" if scope == PLATFORM else f"{scope.id} day"
