"""Port: the live lines of runs (EV-8). Hints: what counts is the log blob of the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fleet.ids import RunKey
from fleet.tools import LogLine

__all__ = ["LogPage", "RunLogs"]


@dataclass(frozen=True, slots=True)
class LogPage:
    """Lines in their order; `is_over` when the run ended and these are its last ones."""

    lines: tuple[LogLine, ...]
    is_over: bool


class RunLogs(Protocol):
    """Live lines by run key, for any process; about the last 20,000 of a run, for a day after its last line."""

    async def append(self, key: RunKey, lines: Sequence[LogLine]) -> None:
        """Readers see these lines. A line number that is there already is left out (a run that is joined twice)."""
        ...

    async def end(self, key: RunKey) -> None:
        """Readers see that the run is over."""
        ...

    async def read(self, key: RunKey, *, after: int = 0, limit: int = 500, wait_s: float = 0) -> LogPage:
        """At most `limit` lines with a number above `after`; waits for the first one up to `wait_s` seconds."""
        ...
