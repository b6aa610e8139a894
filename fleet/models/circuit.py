"""Whether an engine is asked at all: a circuit that failures open and a probe closes again (MB-13)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

__all__ = ["FAILURES", "LONGEST_OPEN_MS", "OPEN_MS", "Circuit", "CircuitState"]

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
