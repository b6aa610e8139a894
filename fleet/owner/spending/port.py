"""Port: what all stories together spend per day, for the budgets of the platform and of projects (MB-20..MB-23)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from fleet.events.budget import BudgetScope
from fleet.kernel.ids import StoryId
from fleet.models.routing.budget import BudgetLimits, BudgetTotals, Spend


@dataclass(frozen=True, slots=True)
class SpendingHold:
    """One reservation: of which call, on which day (`YYYY-MM-DD`, UTC), in which scopes, and how much."""

    hold_id: str
    story_id: StoryId
    day: str
    scopes: tuple[BudgetScope, ...]
    need: Spend


class DaySpending(Protocol):
    """Totals per scope and day. Reserved counts like spent until it is settled, so no crash creates budget (MB-23).

    Everything may be called again with the same hold: it counts once. All of it survives restarts.
    """

    async def reserve(self, hold: SpendingHold, *, limits: Mapping[BudgetScope, BudgetLimits]) -> None:
        """The hold counts in all its scopes, or in none. A hold that is known, settled or not, changes nothing.

        Raises:
            BudgetExceeded: a scope cannot hold it; `kind`, `id`, `quantity`, `limit`, `used` and `need` name it.
            StoreUnavailable, CommitUnknown: call again with the same hold.
        """
        ...

    async def settle(self, hold: SpendingHold, actual: Spend) -> bool:
        """What was really used has replaced the hold, on the day of the hold. False when it is settled or unknown."""
        ...

    async def totals(self, scopes: Sequence[BudgetScope], day: str) -> tuple[BudgetTotals, ...]:
        """What each of the scopes has spent and reserved on that day, all read at one moment; nothing when unknown."""
        ...

    async def open_holds(self, story_id: StoryId) -> list[SpendingHold]:
        """The reservations of the story that nobody settled, by id."""
        ...
