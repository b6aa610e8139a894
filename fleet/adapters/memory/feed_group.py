"""In-memory twin of the port FeedGroup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fleet.adapters.clock import SystemClock
from fleet.adapters.memory.log import MemoryEventLog
from fleet.ports import Backlog, Clock, FeedHint, HintDelivery

__all__ = ["MemoryFeedGroup"]


@dataclass(slots=True)
class _Taken:
    hint: FeedHint
    attempts: int
    taken_ms: int


class MemoryFeedGroup:
    """One group on the hints of a MemoryEventLog, from the first hint on. Implements the port FeedGroup.

    Args:
        abandoned_after_s: a hint that was taken and not acknowledged for so long is delivered again.
        batch: most hints that one `take` returns.
    """

    def __init__(
        self,
        log: MemoryEventLog,
        clock: Clock | None = None,
        *,
        abandoned_after_s: float = 30.0,
        batch: int = 500,
    ) -> None:
        self._log = log
        self._clock = clock or SystemClock()
        self._abandoned_after_ms = int(abandoned_after_s * 1000)
        self._batch = batch
        self._next = 0
        self._taken: dict[str, _Taken] = {}
        self._seen_ms: list[int] = []

    async def take(self, consumer: str, *, timeout_s: float) -> list[HintDelivery]:
        """New and abandoned hints; empty when the time is over."""
        until_ms = self._clock.monotonic_ms() + int(timeout_s * 1000)
        while True:
            if found := self._deliver():
                return found
            look_again_ms = min([until_ms, *self._abandoned_at()])
            if not await self._log.grown.wait(self._clock, until_ms=look_again_ms) and look_again_ms == until_ms:
                return []

    def _deliver(self) -> list[HintDelivery]:
        now_ms = self._note()
        due = [r for r, taken in self._taken.items() if taken.taken_ms + self._abandoned_after_ms <= now_ms]
        for receipt in due[: self._batch]:
            taken = self._taken[receipt]
            taken.attempts, taken.taken_ms = taken.attempts + 1, now_ms
        last = min(len(self._log.hints), self._next + self._batch - len(due[: self._batch]))
        fresh = {str(n): _Taken(self._log.hints[n], 1, now_ms) for n in range(self._next, last)}
        self._taken.update(fresh)
        self._next = last
        return [self._delivery(receipt) for receipt in [*due[: self._batch], *fresh]]

    def _note(self) -> int:
        """The time now, which is that of every hint not seen before."""
        now_ms = self._clock.monotonic_ms()
        self._seen_ms += [now_ms] * (len(self._log.hints) - len(self._seen_ms))
        return now_ms

    def _delivery(self, receipt: str) -> HintDelivery:
        taken = self._taken[receipt]
        return HintDelivery(receipt=receipt, hint=taken.hint, attempts=taken.attempts)

    def _abandoned_at(self) -> list[int]:
        return [taken.taken_ms + self._abandoned_after_ms for taken in self._taken.values()]

    async def acknowledge(self, deliveries: Sequence[HintDelivery]) -> None:
        """These hints are not delivered again."""
        for delivery in deliveries:
            self._taken.pop(delivery.receipt, None)

    async def backlog(self) -> Backlog:
        """Hints that were not acknowledged; the age of one counts from when this group first looked."""
        now_ms = self._note()
        left = [*map(int, self._taken), *range(self._next, len(self._log.hints))]
        return Backlog(pending=len(left), oldest_ms=now_ms - self._seen_ms[min(left)] if left else 0)
