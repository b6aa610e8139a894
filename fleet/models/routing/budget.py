"""Budget arithmetic over totals: reserve before a call, settle after it (MB-20..MB-25)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal, NamedTuple

from pydantic import ConfigDict, Field

from fleet.kernel.errors import BudgetExceeded
from fleet.kernel.types import BudgetLimit, Frozen
from fleet.models.engine_config import Price
from fleet.models.usage import affordable_tokens

MIN_USEFUL_TOKENS = 256
"""A reply bound below this is not worth a call (MB-22)."""

QUANTITIES: tuple[BudgetLimit, ...] = ("tokens", "output_tokens", "calls", "cost_microusd", "gpu_ms", "wall_ms")
Amount = Annotated[int, Field(ge=0)]


class BudgetLimits(Frozen):
    """Limits of one scope; an absent one is unlimited."""

    tokens: Amount | None = None
    output_tokens: Amount | None = None
    calls: Amount | None = None
    cost_microusd: Amount | None = None
    gpu_ms: Amount | None = None
    wall_ms: Amount | None = None

    def of(self, quantity: BudgetLimit) -> int | None:
        """The limit of one quantity."""
        return getattr(self, quantity)

    @cached_property
    def bound(self) -> tuple[tuple[BudgetLimit, int], ...]:
        """The quantities that are limited, each with its limit, in the order of `QUANTITIES`."""
        return tuple((name, limit) for name in QUANTITIES if (limit := self.of(name)) is not None)


@dataclass(frozen=True, slots=True)
class Spend:
    """Amounts of one call, or of many together; none is below zero.

    A plain class: each step of a story adds several in each of its scopes. What comes from outside is validated by
    whoever reads it.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    tokens: Amount = 0
    output_tokens: Amount = 0
    calls: Amount = 0
    cost_microusd: Amount = 0
    gpu_ms: Amount = 0
    wall_ms: Amount = 0

    def of(self, quantity: BudgetLimit) -> int:
        """The amount of one quantity."""
        return getattr(self, quantity)

    def plus(self, other: Spend) -> Spend:
        """Both together."""
        return Spend(
            self.tokens + other.tokens,
            self.output_tokens + other.output_tokens,
            self.calls + other.calls,
            self.cost_microusd + other.cost_microusd,
            self.gpu_ms + other.gpu_ms,
            self.wall_ms + other.wall_ms,
        )

    def minus(self, other: Spend) -> Spend:
        """What is left; never below zero."""
        return Spend(
            max(0, self.tokens - other.tokens),
            max(0, self.output_tokens - other.output_tokens),
            max(0, self.calls - other.calls),
            max(0, self.cost_microusd - other.cost_microusd),
            max(0, self.gpu_ms - other.gpu_ms),
            max(0, self.wall_ms - other.wall_ms),
        )

    def times(self, count: int) -> Spend:
        """As much again and again: `count` times altogether."""
        return Spend(**{name: self.of(name) * count for name in QUANTITIES})


@dataclass(frozen=True, slots=True)
class BudgetTotals:
    """What one scope has spent and reserved. A reservation counts like spending until it is settled (MB-23)."""

    spent: Spend = Spend()
    reserved: Spend = Spend()

    @property
    def used(self) -> Spend:
        """Spent and reserved together."""
        return self.spent.plus(self.reserved)


class Crossing(NamedTuple):
    """A limit that was reached or nearly reached by one change (MB-25)."""

    quantity: BudgetLimit
    level: Literal["warning", "exhausted"]


def reserve(totals: BudgetTotals, need: Spend, *, limits: BudgetLimits, scope: str) -> BudgetTotals:
    """The totals with `need` reserved.

    Raises:
        BudgetExceeded: a limit of the scope cannot hold it; nothing was reserved (MB-22).
    """
    used = totals.used if limits.bound else Spend()
    for name, limit in limits.bound:
        if need.of(name) and used.of(name) + need.of(name) > limit:
            raise BudgetExceeded(
                f"the {scope} budget of {limit} {name} cannot hold {need.of(name)} more ({used.of(name)} used); "
                "raise the budget or stop here",
                scope=scope,
                quantity=name,
                limit=limit,
                used=used.of(name),
                need=need.of(name),
            )
    return BudgetTotals(spent=totals.spent, reserved=totals.reserved.plus(need))


def settle(totals: BudgetTotals, reserved: Spend, actual: Spend) -> BudgetTotals:
    """The totals with the reservation replaced by what the call really used."""
    return BudgetTotals(spent=totals.spent.plus(actual), reserved=totals.reserved.minus(reserved))


def fit_max_tokens(
    prompt_tokens: int,
    max_tokens: int,
    *,
    scopes: Mapping[str, tuple[BudgetTotals, BudgetLimits]],
    price: Price | None = None,
) -> int:
    """The largest reply bound, at most `max_tokens`, that every scope can hold beside the prompt (MB-22).

    A reply bound that is smaller from the start is kept; it is only never lowered below `MIN_USEFUL_TOKENS`.

    Args:
        price: of the dearest engine that may answer; None leaves money out.

    Raises:
        BudgetExceeded: a scope has room for fewer tokens than that; it is named, with the quantity that is short.
    """
    fitted = max_tokens
    floor = min(max_tokens, MIN_USEFUL_TOKENS)
    for scope, (totals, limits) in scopes.items():
        if not limits.bound:
            continue
        rooms = _rooms(totals.used, limits, prompt_tokens=prompt_tokens, price=price)
        if not rooms:
            continue
        quantity = min(rooms, key=lambda name: rooms[name])
        room = rooms[quantity]
        if room < floor:
            raise BudgetExceeded(
                f"the {scope} budget of {limits.of(quantity)} {quantity} has room for {max(0, room)} reply tokens "
                f"({totals.used.of(quantity)} used), a useful call needs {floor}; raise the budget or stop here",
                scope=scope,
                quantity=quantity,
                limit=limits.of(quantity),
                used=totals.used.of(quantity),
                need=floor,
                room=max(0, room),
            )
        fitted = min(fitted, room)
    return fitted


def _rooms(used: Spend, limits: BudgetLimits, *, prompt_tokens: int, price: Price | None) -> Mapping[BudgetLimit, int]:
    """The reply tokens that each limited quantity leaves."""
    rooms: dict[BudgetLimit, int] = {}
    if limits.tokens is not None:
        rooms["tokens"] = limits.tokens - used.tokens - prompt_tokens
    if limits.output_tokens is not None:
        rooms["output_tokens"] = limits.output_tokens - used.output_tokens
    if limits.cost_microusd is not None and price is not None:
        room = affordable_tokens(price, max(0, limits.cost_microusd - used.cost_microusd), tokens_in=prompt_tokens)
        if room is not None:
            rooms["cost_microusd"] = room
    return rooms


def spent_out(totals: BudgetTotals, limits: BudgetLimits) -> BudgetLimit | None:
    """The first quantity whose limit is used up, None while there is room: no new call starts then (MB-25)."""
    if not limits.bound:
        return None
    used = totals.used
    return next((name for name, limit in limits.bound if used.of(name) >= limit), None)


def crossings(before: Spend, after: Spend, limits: BudgetLimits) -> tuple[Crossing, ...]:
    """The limits that this change took past 80 % or 100 %, each reported once (MB-25)."""
    crossed: list[Crossing] = []
    for name, limit in limits.bound:
        old, new = before.of(name), after.of(name)
        if old < limit <= new:
            crossed.append(Crossing(name, "exhausted"))
        elif old * 5 < limit * 4 <= new * 5 and new < limit:
            crossed.append(Crossing(name, "warning"))
    return tuple(crossed)
