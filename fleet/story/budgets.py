"""What the scopes of a story have spent and reserved, as its events say it (MB-20..MB-26). Pure arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from fleet.events.budget import BudgetScope
from fleet.events.step import Cost, Reserve, StepStarted
from fleet.kernel.ids import StoryId
from fleet.kernel.types import BudgetLimit
from fleet.models.routing.budget import BudgetTotals, Spend


def _frozen_map() -> Mapping[Any, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class ScopeUsage:
    """What one scope has used. Wall time counts while at least one of its steps runs, and no longer (MB-26)."""

    spent: Spend = Spend()
    reserved: Spend = Spend()
    running: int = 0
    """Steps under way."""
    since_ms: int = 0
    """When the first of them began."""
    until_ms: int = 0
    """The last of their deadlines: time after it is no work of theirs."""
    warned: Mapping[BudgetLimit, int] = field(default_factory=_frozen_map)
    """Quantity -> the limit of which a warning is on record."""
    exhausted: Mapping[BudgetLimit, int] = field(default_factory=_frozen_map)
    """Quantity -> the limit that is on record as used up."""

    def totals(self, *, now_ms: int | None = None) -> BudgetTotals:
        """Spent and reserved; the wall time of steps under way counts up to `now_ms`."""
        if now_ms is None or not self.running:
            return BudgetTotals(spent=self.spent, reserved=self.reserved)
        return BudgetTotals(spent=self._spent(now_ms), reserved=self.reserved)

    def begun(self, *, now_ms: int, deadline_ms: int) -> ScopeUsage:
        """One more step runs."""
        if not self.running:
            return self._with(running=1, since_ms=now_ms, until_ms=deadline_ms)
        return self._with(running=self.running + 1, until_ms=max(self.until_ms, deadline_ms))

    def ended(self, *, now_ms: int) -> ScopeUsage:
        """One step fewer runs."""
        if self.running > 1:
            return self._with(running=self.running - 1)
        return self._with(spent=self._spent(now_ms), running=0, since_ms=0, until_ms=0)

    def taken_over(self, *, now_ms: int, last_ms: int) -> ScopeUsage:
        """The steps under way begin again in other hands: as much time is theirs once more.

        Args:
            last_ms: the last sign of the former owner. Nobody worked since, and the clocks of two owners may be minutes
                apart: what lies between is no work of theirs.
        """
        if not self.running:
            return self
        return self._with(
            spent=self._spent(last_ms), since_ms=now_ms, until_ms=now_ms + max(0, self.until_ms - self.since_ms)
        )

    def holding(self, reserved: Spend) -> ScopeUsage:
        """The same with this much reserved."""
        return self._with(reserved=reserved)

    def settled(self, *, freed: Spend, actual: Spend) -> ScopeUsage:
        """What was reserved for a step is free, and what it used is spent."""
        return self._with(reserved=self.reserved.minus(freed), spent=self.spent.plus(actual))

    def _with(
        self,
        *,
        spent: Spend | None = None,
        reserved: Spend | None = None,
        running: int | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
    ) -> ScopeUsage:
        """As `replace`, in a third of the time: a fold makes eight for each step."""
        return ScopeUsage(
            self.spent if spent is None else spent,
            self.reserved if reserved is None else reserved,
            self.running if running is None else running,
            self.since_ms if since_ms is None else since_ms,
            self.until_ms if until_ms is None else until_ms,
            self.warned,
            self.exhausted,
        )

    def _spent(self, now_ms: int) -> Spend:
        """What is spent once the time of the steps under way counts, up to now."""
        elapsed = max(0, min(now_ms, self.until_ms) - self.since_ms)
        return self.spent.plus(Spend(wall_ms=elapsed))


@dataclass(frozen=True, slots=True)
class Hold:
    """The reservation of one step. It stays spent until the step, or the engine's own log, settles it (MB-23)."""

    need: Spend
    is_open: bool = True
    """A call may be under way."""
    is_call: bool = True
    """A model call, which a next owner makes anew; anything else it joins."""
    lost: tuple[int, ...] = ()
    """Epochs whose owner ended in the middle of the call: each may have used all of it."""

    @property
    def total(self) -> Spend:
        """What is held altogether."""
        return self.need.times(len(self.lost) + self.is_open)


@dataclass(frozen=True, slots=True)
class StoryBudgets:
    """The budgets of one story: usage by scope, open reservations, and limits that somebody set."""

    scopes: Mapping[str, ScopeUsage] = field(default_factory=_frozen_map)
    """By `scope_key`."""
    holds: Mapping[str, Hold] = field(default_factory=_frozen_map)
    """By step."""
    running: tuple[str, ...] = ()
    """Steps whose wall time counts now."""
    limits: Mapping[str, Mapping[str, int]] = field(default_factory=_frozen_map)
    """By `scope_key`: what a BudgetSet says, in place of what is configured."""

    def usage(self, scope: BudgetScope) -> ScopeUsage:
        """What the scope has used."""
        return self.scopes.get(scope_key(scope), ScopeUsage())


def scope_key(scope: BudgetScope) -> str:
    """The name of a scope within its story."""
    return f"{scope.kind}:{scope.id}"


@lru_cache(maxsize=1024)
def scopes_of_work(
    story: StoryId, *, role: str, task_id: str | None, council_id: str | None
) -> tuple[BudgetScope, ...]:
    """The scopes of a story that a piece of work counts in, outer to inner (MB-20). Each of its steps asks for them."""
    found = [BudgetScope(kind="story", id=story)]
    if task_id is not None:
        found.append(BudgetScope(kind="task", id=task_id))
    if council_id is not None:
        found.append(BudgetScope(kind="council", id=council_id))
    return (*found, BudgetScope(kind="role", id=role))


def scopes_of_step(story: StoryId, started: StepStarted) -> tuple[BudgetScope, ...]:
    """The scopes that a recorded step counts in."""
    return scopes_of_work(story, role=started.as_role, task_id=started.task_id, council_id=started.council_id)


def reserved_spend(reserve: Reserve, *, calls: int) -> Spend:
    """What a reservation holds; wall time is counted while it passes and never held."""
    return Spend(
        tokens=reserve.tokens,
        output_tokens=reserve.output_tokens or 0,
        calls=calls,
        cost_microusd=reserve.cost_microusd or 0,
        gpu_ms=reserve.gpu_ms,
    )


def actual_spend(cost: Cost, *, calls: int) -> Spend:
    """What a finished step used, without its wall time."""
    return Spend(
        tokens=cost.tokens_in + cost.tokens_out,
        output_tokens=cost.tokens_out,
        calls=cost.calls if cost.calls is not None else calls,
        cost_microusd=cost.cost_microusd or 0,
        gpu_ms=cost.gpu_ms,
    )
