"""In-memory twin of the port Feed."""

from __future__ import annotations

from fleet.adapters.clock import SystemClock
from fleet.adapters.memory.log import MemoryEventLog
from fleet.errors import InvalidInput
from fleet.ports import Clock, FeedHint

__all__ = ["MemoryFeed"]


class MemoryFeed:
    """The hints of one MemoryEventLog. Implements the port Feed; a cursor is a number of hints."""

    def __init__(self, log: MemoryEventLog, clock: Clock | None = None) -> None:
        self._log = log
        self._clock = clock or SystemClock()

    async def position(self) -> str:
        """The cursor after every hint so far."""
        return str(len(self._log.hints))

    async def wait(self, cursor: str, *, timeout_s: float) -> tuple[list[FeedHint], str]:
        """Hints after `cursor` and the next cursor; empty when the time is over. InvalidInput for a foreign cursor."""
        if not cursor.isdecimal():
            raise InvalidInput(f"{cursor[:100]!r} is no cursor of this feed: start from `position`", value=cursor[:100])
        until_ms = self._clock.monotonic_ms() + int(timeout_s * 1000)
        while len(self._log.hints) <= int(cursor):
            if not await self._log.grown.wait(self._clock, until_ms=until_ms):
                return [], cursor
        return self._log.hints[int(cursor) :], str(len(self._log.hints))
