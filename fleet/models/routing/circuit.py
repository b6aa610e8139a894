"""Whether an engine is asked at all: a circuit that failures open and a probe closes again (MB-13)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

FAILURES = 3
"""So many failures in a row open the circuit."""
OPEN_MS = 30_000
"""How long it stays open the first time; doubles with each probe that fails."""
LONGEST_OPEN_MS = 300_000

CircuitState = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class Circuit:
    """The circuit of one engine or replica; a new one is closed."""

    failures: int = 0
    """In a row, while closed."""
    open_ms: int = 0
    """How long the circuit is open this time; 0 while it is closed."""
    until_ms: int = 0
    """When a probe may be made."""

    def state(self, now_ms: int) -> CircuitState:
        """Closed: calls go through. Open: none does. Half open: one probe is due, and no call goes through."""
        if not self.open_ms:
            return "closed"
        return "open" if now_ms < self.until_ms else "half_open"

    def succeeded(self) -> Circuit:
        """A call or the probe was answered: the circuit is closed, and failures count from none."""
        return Circuit() if self.failures or self.open_ms else self

    def failed(self, now_ms: int) -> Circuit:
        """A call failed. Failures of calls that began before the circuit opened do not keep it open for longer."""
        if self.open_ms:
            return self
        if self.failures + 1 < FAILURES:
            return replace(self, failures=self.failures + 1)
        return Circuit(FAILURES, OPEN_MS, now_ms + OPEN_MS)

    def probe_failed(self, now_ms: int) -> Circuit:
        """The probe of a half open circuit failed: it stays open twice as long as before, at most 300 s."""
        open_ms = min(LONGEST_OPEN_MS, 2 * self.open_ms)
        return replace(self, open_ms=open_ms, until_ms=now_ms + open_ms)


class BusyMeter:
    """While n calls run, each of them is charged 1/n of the time that passes. So all shares add up to the busy time.

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
