"""The calls that rate caps hold, in the order in which they may go on: a person who waits goes first (MB-28).

Pure: the order depends on the calls and the times given, and on nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fleet.models.chat import Priority
from fleet.models.fair_queue import AGED_AFTER_MS, ORDER, PASSES
from fleet.models.rate_caps import RateLimiter, RateNeed, RateWait

__all__ = ["HeldCall", "RateLine"]


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
        """The call is in the line, or the ms that it would have to wait at least, where these are too many."""
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
