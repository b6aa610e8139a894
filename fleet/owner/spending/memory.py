"""In-memory twin of the port DaySpending."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fleet.events.budget import BudgetScope
from fleet.kernel.errors import BudgetExceeded
from fleet.kernel.ids import StoryId
from fleet.models.routing.budget import BudgetLimits, BudgetTotals, Spend, reserve, settle
from fleet.owner.spending.port import SpendingHold
from fleet.owner.spending.rules import day_is_full


class MemoryDaySpending:
    """Totals kept as long as the object. Implements the port DaySpending."""

    def __init__(self) -> None:
        self._totals: dict[tuple[BudgetScope, str], BudgetTotals] = {}
        self._open: dict[str, SpendingHold] = {}
        self._settled: set[str] = set()

    async def reserve(self, hold: SpendingHold, *, limits: Mapping[BudgetScope, BudgetLimits]) -> None:
        """The hold counts in all its scopes, or in none."""
        if hold.hold_id in self._open or hold.hold_id in self._settled:
            return
        after = {s: self._reserved(s, hold, limits.get(s, BudgetLimits())) for s in hold.scopes}
        self._totals |= {(scope, hold.day): totals for scope, totals in after.items()}
        self._open[hold.hold_id] = hold

    def _reserved(self, scope: BudgetScope, hold: SpendingHold, limits: BudgetLimits) -> BudgetTotals:
        try:
            return reserve(self._of(scope, hold.day), hold.need, limits=limits, scope=scope.kind)
        except BudgetExceeded as error:
            d = error.details
            full = day_is_full(scope, quantity=d["quantity"], limit=d["limit"], used=d["used"], need=d["need"])
            raise full from error

    async def settle(self, hold: SpendingHold, actual: Spend) -> bool:
        """What was really used has replaced the hold."""
        opened = self._open.pop(hold.hold_id, None)
        if opened is None:
            return False
        self._settled.add(hold.hold_id)
        for scope in opened.scopes:
            self._totals[scope, opened.day] = settle(self._of(scope, opened.day), opened.need, actual)
        return True

    async def totals(self, scopes: Sequence[BudgetScope], day: str) -> tuple[BudgetTotals, ...]:
        """What each of the scopes has spent and reserved on that day."""
        return tuple(self._of(scope, day) for scope in scopes)

    async def open_holds(self, story_id: StoryId) -> list[SpendingHold]:
        """The reservations of the story that nobody settled."""
        return [hold for _, hold in sorted(self._open.items()) if hold.story_id == story_id]

    def _of(self, scope: BudgetScope, day: str) -> BudgetTotals:
        return self._totals.get((scope, day), BudgetTotals())
