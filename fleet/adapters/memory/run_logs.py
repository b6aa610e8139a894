"""In-memory twin of the port RunLogs."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from fleet.adapters.clock import SystemClock
from fleet.adapters.memory.waiting import Signal
from fleet.ids import RunKey
from fleet.ports import Clock, LogPage
from fleet.tools import LogLine

__all__ = ["MemoryRunLogs"]


@dataclass(slots=True)
class _Log:
    lines: deque[LogLine]
    is_over: bool = False
    grown: Signal = field(default_factory=Signal)

    @property
    def last(self) -> int:
        return self.lines[-1].n if self.lines else 0


class MemoryRunLogs:
    """Live lines by run key, kept as long as the object. Implements the port RunLogs.

    Args:
        clock: by which readers wait.
        max_lines: how many of one run are kept.
    """

    def __init__(self, clock: Clock | None = None, *, max_lines: int = 20_000) -> None:
        self._clock = clock or SystemClock()
        self._max_lines = max_lines
        self._logs: dict[RunKey, _Log] = {}

    async def append(self, key: RunKey, lines: Sequence[LogLine]) -> None:
        """Readers see these lines; one whose number is not above the last is left out."""
        log = self._log(key)
        for line in lines:
            if line.n > log.last:
                log.lines.append(line)
                log.is_over = False
        log.grown.notify()

    async def end(self, key: RunKey) -> None:
        """Readers see that the run is over."""
        log = self._log(key)
        log.is_over = True
        log.grown.notify()

    async def read(self, key: RunKey, *, after: int = 0, limit: int = 500, wait_s: float = 0) -> LogPage:
        """At most `limit` lines with a number above `after`; waits for the first one up to `wait_s` seconds."""
        until_ms = self._clock.monotonic_ms() + int(wait_s * 1000)
        while True:
            # Looked up anew after each wait: a reader may wait for a run that has printed nothing yet.
            log = self._log(key)
            found = [line for line in log.lines if line.n > after]
            if found or log.is_over or not await log.grown.wait(self._clock, until_ms=until_ms):
                return LogPage(tuple(found[:limit]), log.is_over and len(found) <= limit)

    def _log(self, key: RunKey) -> _Log:
        return self._logs.setdefault(key, _Log(deque(maxlen=self._max_lines)))
