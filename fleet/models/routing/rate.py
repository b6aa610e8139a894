"""Rate caps of engines and tenants: calls wait for their turn, and are told to come later when that is too far (MB-28).

A cap is a bucket that holds one minute's worth and refills evenly. A call takes what it needs once the bucket has it,
so none is dropped, and the mean rate is the cap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from cachetools import LRUCache
from pydantic import Field

from fleet.kernel.types import Frozen
from fleet.models.chat import Priority
from fleet.models.routing.fair_queue import AGED_AFTER_MS, ORDER, PASSES

_MINUTE_MS = 60_000
_KNOWN = 10_000
"""Tenants that are remembered; one that is forgotten has its whole minute again."""


class RateCap(Frozen):
    """Most that may be asked within a minute; an absent figure is no limit."""

    requests_per_min: Annotated[int, Field(ge=1)] | None = None
    tokens_per_min: Annotated[int, Field(ge=1)] | None = None


class RateNeed(NamedTuple):
    """What one call needs of the caps."""

    tenant: str
    tokens: int


class RateWait(NamedTuple):
    """How long a call has to wait for each of the two caps, in ms."""

    engine_ms: int
    tenant_ms: int

    @property
    def ms(self) -> int:
        """The longer of the two."""
        return max(self)


class _Bucket:
    """What is left of one figure; below zero it is owed."""

    def __init__(self, per_min: int, now_ms: int) -> None:
        self._per_min = per_min
        self._left = float(per_min)
        self._as_of_ms = now_ms

    def wait_ms(self, amount: int, now_ms: int, ahead: int = 0) -> int:
        """How long a call of this amount has to wait; more than a minute's worth counts as a minute's."""
        short = ahead + min(amount, self._per_min) - self._left_at(now_ms)
        return max(0, -int(-short * _MINUTE_MS // self._per_min))

    def take(self, amount: int, now_ms: int) -> None:
        self._left = self._left_at(now_ms) - amount
        self._as_of_ms = max(now_ms, self._as_of_ms)

    def _left_at(self, now_ms: int) -> float:
        passed_ms = max(0, now_ms - self._as_of_ms)
        return min(float(self._per_min), self._left + passed_ms * self._per_min / _MINUTE_MS)


class RateLimiter:
    """The caps of one engine: its own, and those of each tenant at it.

    Args:
        engine: cap of all calls together.
        tenants: caps by tenant; `*` is for each tenant that is not named.
    """

    def __init__(self, engine: RateCap | None = None, tenants: Mapping[str, RateCap] | None = None) -> None:
        self._engine = engine
        self._tenants = tenants or {}
        self._buckets = LRUCache[tuple[str, str], _Bucket](_KNOWN)

    @property
    def is_unlimited(self) -> bool:
        """Whether no call ever waits."""
        return self._engine is None and not self._tenants

    def wait(self, need: RateNeed, *, now_ms: int, ahead: Iterable[RateNeed] = ()) -> RateWait:
        """How long the call has to wait when these others go before it. Nothing is taken."""
        ahead = list(ahead)
        own = [other for other in ahead if other.tenant == need.tenant]
        return RateWait(
            self._wait_ms("engine", self._engine, need, now_ms, ahead),
            self._wait_ms(f"tenant:{need.tenant}", self._cap_of(need.tenant), need, now_ms, own),
        )

    def take(self, need: RateNeed, *, now_ms: int) -> None:
        """The call has its share."""
        for name, cap in (("engine", self._engine), (f"tenant:{need.tenant}", self._cap_of(need.tenant))):
            for bucket, amount, _ in self._of(name, cap, need, now_ms, ()):
                bucket.take(amount, now_ms)

    def _cap_of(self, tenant: str) -> RateCap | None:
        return self._tenants.get(tenant, self._tenants.get("*"))

    def _wait_ms(self, name: str, cap: RateCap | None, need: RateNeed, now_ms: int, ahead: Iterable[RateNeed]) -> int:
        needs = self._of(name, cap, need, now_ms, ahead)
        return max((bucket.wait_ms(amount, now_ms, before) for bucket, amount, before in needs), default=0)

    def _of(
        self, name: str, cap: RateCap | None, need: RateNeed, now_ms: int, ahead: Iterable[RateNeed]
    ) -> Iterable[tuple[_Bucket, int, int]]:
        """The buckets of one cap, what the call needs of each, and what those ahead of it do."""
        if cap is None:
            return
        if cap.requests_per_min is not None:
            yield self._bucket(name, "requests", cap.requests_per_min, now_ms), 1, len(list(ahead))
        if cap.tokens_per_min is not None:
            before = sum(other.tokens for other in ahead)
            yield self._bucket(name, "tokens", cap.tokens_per_min, now_ms), need.tokens, before

    def _bucket(self, name: str, figure: str, per_min: int, now_ms: int) -> _Bucket:
        key = (name, figure)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(per_min, now_ms)
        return bucket


@dataclass(frozen=True, slots=True)
class HeldCall:
    """One call that waits for its caps."""

    number: int
    """In order of arrival."""
    need: RateNeed
    priority: Priority
    arrived_ms: int


class RateLine:
    """Who goes on when the caps have room again.

    More urgent calls first, and those of one priority in order of arrival. A less urgent one that has waited for
    `aged_after_ms` is passed by at most `PASSES` more, as in a `FairQueue`. A tenant that has used up its own cap holds
    up nobody else.
    """

    def __init__(self, limiter: RateLimiter, *, aged_after_ms: int = AGED_AFTER_MS) -> None:
        self._limiter, self._aged_after_ms = limiter, aged_after_ms
        self._held: dict[int, HeldCall] = {}
        self._numbers = 0
        self._passes = 0

    def __len__(self) -> int:
        return len(self._held)

    def offer(self, need: RateNeed, priority: Priority, *, now_ms: int, longest_ms: int) -> HeldCall | int:
        """Put the call in the line. Returns the ms that it would have to wait at least where these are too many."""
        call = HeldCall(self._numbers + 1, need, priority, now_ms)
        ahead = [other.need for other in self._held.values() if _rank(other) < _rank(call)]
        wait = self._limiter.wait(need, now_ms=now_ms, ahead=ahead)
        if wait.ms > longest_ms:
            return wait.ms
        self._numbers += 1
        self._held[call.number] = call
        return call

    def remove(self, call: HeldCall) -> bool:
        """The call waits no longer; False when it did not wait any more."""
        return self._held.pop(call.number, None) is not None

    def admit(self, *, now_ms: int) -> list[HeldCall]:
        """The calls that go on now, with their share taken; they have left the line."""
        admitted: list[HeldCall] = []
        while (call := self._first(now_ms)) is not None:
            self._limiter.take(call.need, now_ms=now_ms)
            self.remove(call)
            admitted.append(call)
            is_passed = any(_rank(aged) > _rank(call) for aged in self._aged(now_ms))
            self._passes = self._passes + 1 if is_passed else 0
        return admitted

    def next_ms(self, *, now_ms: int) -> int | None:
        """In how many ms the next one may go on, right after `admit`; None when the line is empty."""
        waits = [wait.ms for _, wait in self._in_turn(now_ms)]
        return min(waits, default=None)

    def _first(self, now_ms: int) -> HeldCall | None:
        """The first one that need not wait any longer."""
        return next((call for call, wait in self._in_turn(now_ms) if not wait.ms), None)

    def _in_turn(self, now_ms: int) -> Iterator[tuple[HeldCall, RateWait]]:
        """The first call of each tenant with its wait, in order; none behind one that waits for the engine's cap."""
        seen: set[str] = set()
        for call in self._order(now_ms):
            if call.need.tenant in seen:
                continue
            seen.add(call.need.tenant)
            wait = self._limiter.wait(call.need, now_ms=now_ms)
            yield call, wait
            if wait.engine_ms:
                return

    def _order(self, now_ms: int) -> list[HeldCall]:
        ordered = sorted(self._held.values(), key=_rank)
        aged = self._aged(now_ms) if self._passes >= PASSES else []
        return [*aged[:1], *(call for call in ordered if call not in aged[:1])]

    def _aged(self, now_ms: int) -> list[HeldCall]:
        """Those that waited for long, the oldest first."""
        return [call for call in self._held.values() if now_ms - call.arrived_ms >= self._aged_after_ms]


def _rank(call: HeldCall) -> tuple[int, int]:
    return ORDER.index(call.priority), call.number
