"""What both adapters of DaySpending say when a scope is full."""

from __future__ import annotations

from fleet.events.budget import BudgetScope
from fleet.kernel.errors import BudgetExceeded

KEPT_S = 400 * 86_400
"""Seconds for which the totals of a day are kept."""


def day_is_full(scope: BudgetScope, *, quantity: str, limit: int, used: int, need: int) -> BudgetExceeded:
    """The error that names scope, limit and what is missing."""
    whose = "the platform" if scope.kind == "platform" else f"{scope.kind} {scope.id}"
    return BudgetExceeded(
        f"the budget of {whose} for this day, {limit} {quantity}, cannot hold {need} more ({used} used): go on "
        "tomorrow (UTC), or raise `budgets` in config/models.yaml",
        scope=scope.kind,
        kind=scope.kind,
        id=scope.id,
        quantity=quantity,
        limit=limit,
        used=used,
        need=need,
    )
