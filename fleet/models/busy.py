"""Busy time of an engine, shared among the calls that ran at the same time (MB-15)."""

from __future__ import annotations

__all__ = ["BusyMeter"]


class BusyMeter:
    """While n calls run, each of them is charged 1/n of the time that passes; so all shares add up to the busy time.

    Times are milliseconds of one clock that never goes back.
    """

    def __init__(self) -> None:
        self._running = 0
        self._at_ms = 0
        self._each_ms = 0.0
        """What a call that ran from the start until now would have been charged."""
        self._busy_ms = 0

    @property
    def running(self) -> int:
        """How many calls run now."""
        return self._running

    def busy_ms(self, now_ms: int) -> int:
        """Time with at least one call running, up to now."""
        self._advance(now_ms)
        return self._busy_ms

    def begin(self, now_ms: int) -> float:
        """One more call runs; what is returned belongs into `end`."""
        self._advance(now_ms)
        self._running += 1
        return self._each_ms

    def end(self, mark: float, now_ms: int) -> float:
        """The call runs no more; its share in milliseconds."""
        self._advance(now_ms)
        self._running -= 1
        return self._each_ms - mark

    def _advance(self, now_ms: int) -> None:
        if self._running:
            self._each_ms += (now_ms - self._at_ms) / self._running
            self._busy_ms += now_ms - self._at_ms
        self._at_ms = now_ms
